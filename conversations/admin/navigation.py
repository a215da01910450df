"""The way around: what staff come for, in the order in which they need it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django_q.models import Failure, Schedule

from conversations.admin import access
from conversations.models import (
    ApiKey,
    Assistant,
    ChannelAccount,
    Client,
    Contact,
    Conversation,
    Erasure,
    Feedback,
    InboundEvent,
    Membership,
    Message,
    StaffAction,
    Turn,
)

WAITING = {"waits": "person"}  # a filter of the list of sessions

# title of the group: (title, icon of Material Symbols, table)
GROUPS: dict[str, list[tuple[str, str, type[Model]]]] = {
    "Sessions": [
        ("Conversations", "forum", Conversation),
        ("Contacts", "person", Contact),
    ],
    "Set-up": [
        ("Assistants", "smart_toy", Assistant),
        ("Channels", "cable", ChannelAccount),
        ("Keys", "key", ApiKey),
        ("Clients", "storefront", Client),
        ("People", "group", Membership),
    ],
    "What happened": [
        ("Messages", "outgoing_mail", Message),
        ("Replies", "psychology", Turn),
        ("Feedback", "thumbs_up_down", Feedback),
        ("Events", "move_to_inbox", InboundEvent),
        ("Erasures", "person_remove", Erasure),
        ("Audit trail", "history", StaffAction),
    ],
    "System": [
        ("Users", "manage_accounts", User),
        ("Failed tasks", "running_with_errors", Failure),
        ("Schedules", "schedule", Schedule),
    ],
}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups with those of their pages that the user may see; a group without any is left out."""
    home = {"title": "Dashboard", "icon": "monitoring", "link": reverse("admin:index")}
    groups = [{"items": [home]}]
    for title, pages in GROUPS.items():
        items: list[dict[str, Any]] = [
            {"title": name, "icon": icon, "link": address_of(model)}
            for name, icon, model in pages
            if (page := admin.site._registry.get(model)) and page.has_module_permission(request)
        ]
        if title == "Sessions" and items:
            items[:1] = _inbox_and_all(items[0])
            items += _simulator(request)
        for item in items:
            if item["link"] == address_of(ChannelAccount):
                item["active"] = _in_channels  # the simulator's pages are beside the accounts'
        if items:
            groups.append({"title": title, "separator": True, "items": items})  # type: ignore[dict-item]
    return groups


def _inbox_and_all(conversations: dict[str, Any]) -> list[dict[str, Any]]:
    """The sessions that wait for a person, and all of them; one of the two is where one is."""

    def in_inbox(request: HttpRequest) -> bool:
        return request.path == conversations["link"] and request.GET.dict() == WAITING

    def elsewhere(request: HttpRequest) -> bool:
        return conversations["link"] in request.path and not in_inbox(request)

    inbox = {
        "title": "Inbox",
        "icon": "inbox",
        "link": f"{conversations['link']}?{urlencode(WAITING)}",
        "active": in_inbox,
    }
    return [inbox, {**conversations, "active": elsewhere}]


def _simulator(request: HttpRequest) -> list[dict[str, Any]]:
    """Where managers play a customer."""
    if not access.can_somewhere(request.user, access.Role.MANAGER):
        return []
    link = reverse("admin:simulator")
    return [{"title": "Simulator", "icon": "smartphone", "link": link, "active": _in_simulator}]


def _in_simulator(request: HttpRequest) -> bool:
    return "/simulator/" in request.path


def _in_channels(request: HttpRequest) -> bool:
    return address_of(ChannelAccount) in request.path and not _in_simulator(request)


def address_of(model: type[Model]) -> str:
    """The address of the table's list."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
