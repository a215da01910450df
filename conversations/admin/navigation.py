"""The navigation at the side, in the order in which staff need the pages."""

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
    ContactMatch,
    Conversation,
    Erasure,
    Feedback,
    InboundEvent,
    McpServer,
    Membership,
    Message,
    ModelProvider,
    RetentionReport,
    StaffAction,
    Tool,
    ToolCall,
    Turn,
)

WAITING = {"waits": "person"}  # the filter of the list of conversations that makes the inbox

# title of the group: (title, icon of Material Symbols, table)
GROUPS: dict[str, list[tuple[str, str, type[Model]]]] = {
    "Messaging": [
        ("Conversations", "forum", Conversation),
        ("Contacts", "person", Contact),
        ("Duplicates", "merge", ContactMatch),
    ],
    "Settings": [
        ("Assistants", "smart_toy", Assistant),
        ("Model providers", "memory", ModelProvider),
        ("Tools", "build", Tool),
        ("MCP servers", "hub", McpServer),
        ("Channels", "cable", ChannelAccount),
        ("API keys", "key", ApiKey),
        ("Clients", "storefront", Client),
        ("Staff", "group", Membership),
    ],
    "Activity": [
        ("Messages", "outgoing_mail", Message),
        ("Replies", "psychology", Turn),
        ("Tool calls", "function", ToolCall),
        ("Feedback", "thumbs_up_down", Feedback),
        ("Events", "move_to_inbox", InboundEvent),
        ("Erasures", "person_remove", Erasure),
        ("Retention", "auto_delete", RetentionReport),
        ("Audit log", "history", StaffAction),
    ],
    "System": [
        ("Users", "manage_accounts", User),
        ("Failed tasks", "running_with_errors", Failure),
        ("Schedules", "schedule", Schedule),
    ],
}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups with the pages that the user may see. A group without any is left out."""
    home = {"title": "Dashboard", "icon": "monitoring", "link": reverse("admin:index")}
    groups = [{"items": [home]}]
    for title, pages in GROUPS.items():
        items: list[dict[str, Any]] = [
            {"title": name, "icon": icon, "link": address_of(model)}
            for name, icon, model in pages
            if (page := admin.site._registry.get(model)) and page.has_module_permission(request)
        ]
        if title == "Messaging" and items:
            items[:1] = _inbox_and_all(items[0])
            items += _simulator(request)
        for item in items:
            if item["link"] == address_of(ChannelAccount):
                item["active"] = _in_channels  # the addresses of the simulator begin with those of the accounts
        if items:
            groups.append({"title": title, "separator": True, "items": items})  # type: ignore[dict-item]
    return groups


def _inbox_and_all(conversations: dict[str, Any]) -> list[dict[str, Any]]:
    """Return two links, to the inbox and to all conversations. Only one of them is marked as current."""

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
    """Return the link to the simulator, for managers."""
    if not access.can_somewhere(request.user, access.Role.MANAGER):
        return []
    link = reverse("admin:simulator")
    return [{"title": "Simulator", "icon": "smartphone", "link": link, "active": _in_simulator}]


def _in_simulator(request: HttpRequest) -> bool:
    return "/simulator/" in request.path


def _in_channels(request: HttpRequest) -> bool:
    return address_of(ChannelAccount) in request.path and not _in_simulator(request)


def address_of(model: type[Model]) -> str:
    """Return the address of the table's list."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
