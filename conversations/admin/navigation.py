"""The navigation at the side, in the order in which staff need the pages."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop
from django_q.models import Failure, Schedule

from conversations.admin import access
from conversations.models import (
    ApiKey,
    Assistant,
    CannedReply,
    ChannelAccount,
    Client,
    Contact,
    ContactMatch,
    Conversation,
    Erasure,
    EventDelivery,
    EventEndpoint,
    Feedback,
    InboundEvent,
    Label,
    McpServer,
    Membership,
    Message,
    MessageTemplate,
    ModelProvider,
    Proposal,
    RetentionReport,
    StaffAction,
    Survey,
    Team,
    Tool,
    ToolCall,
    Turn,
)
from conversations.words import lazy as _

WAITING = {"waits": "person"}  # the filter of the list of conversations by what waits for a person

# title of the group: (title, icon of Material Symbols, table)
GROUPS: dict[str, list[tuple[str, str, type[Model]]]] = {
    gettext_noop("Messaging"): [
        (_("Conversations"), "forum", Conversation),
        (_("Contacts"), "person", Contact),
        (_("Duplicates"), "merge", ContactMatch),
    ],
    gettext_noop("Settings"): [
        (_("Assistants"), "smart_toy", Assistant),
        (_("Model providers"), "memory", ModelProvider),
        (_("Tools"), "build", Tool),
        (_("MCP servers"), "hub", McpServer),
        (_("Channels"), "cable", ChannelAccount),
        (_("Templates"), "news", MessageTemplate),
        (_("API keys"), "key", ApiKey),
        (_("Event endpoints"), "webhook", EventEndpoint),
        (_("Clients"), "storefront", Client),
        (_("Canned replies"), "quickreply", CannedReply),
        (_("Labels"), "label", Label),
        (_("Satisfaction"), "sentiment_satisfied", Survey),
        (_("Staff"), "group", Membership),
        (_("Teams"), "groups", Team),
    ],
    gettext_noop("Activity"): [
        (_("Messages"), "outgoing_mail", Message),
        (_("Replies"), "psychology", Turn),
        (_("Tool calls"), "function", ToolCall),
        (_("Proposals"), "rate_review", Proposal),
        (_("Feedback"), "thumbs_up_down", Feedback),
        (_("Events"), "move_to_inbox", InboundEvent),
        (_("Events out"), "outbox", EventDelivery),
        (_("Erasures"), "person_remove", Erasure),
        (_("Retention"), "auto_delete", RetentionReport),
        (_("Audit log"), "history", StaffAction),
    ],
    gettext_noop("System"): [
        (_("Users"), "manage_accounts", User),
        (_("Linked accounts"), "link", SocialAccount),
        (_("Failed tasks"), "running_with_errors", Failure),
        (_("Schedules"), "schedule", Schedule),
    ],
}
FOR_ALL = ("Messaging",)  # the groups that are not for managers alone


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups with the pages that the user may see. A group without any is left out.

    Viewers and agents work in the inbox: what managers set up and what they look into is not in their menu, although
    they may read it.
    """
    home = {"title": gettext("Dashboard"), "icon": "monitoring", "link": reverse("admin:index")}
    groups = [{"items": [home]}]
    sets_up = access.can_somewhere(request.user, access.Role.MANAGER)
    for title, pages in GROUPS.items():
        if not sets_up and title not in FOR_ALL:
            continue
        items: list[dict[str, Any]] = [
            {"title": name, "icon": icon, "link": address_of(model)}
            for name, icon, model in pages
            if (page := admin.site._registry.get(model)) and page.has_module_permission(request)
        ]
        if title == "Messaging" and items:
            items[:1] = _inbox_and_all(items[0])
            items += [_reports(), *_simulator(request)]
        for item in items:
            if item["link"] == address_of(ChannelAccount):
                item["active"] = _in_channels  # the addresses of the simulator begin with those of the accounts
        if items:
            groups.append({"title": gettext(title), "separator": True, "items": items})  # type: ignore[dict-item]
    return groups


def _inbox_and_all(conversations: dict[str, Any]) -> list[dict[str, Any]]:
    """Return two links, to the inbox and to all conversations. Only one of them is marked as current."""
    link = reverse("inbox:page")
    inbox = {
        "title": gettext("Inbox"),
        "icon": "inbox",
        "link": link,
        "active": lambda request: request.path.startswith(link),
    }
    return [inbox, conversations]


def _reports() -> dict[str, Any]:
    """Return the link to the reports."""
    link = reverse("reports:page")
    return {
        "title": gettext("Reports"),
        "icon": "bar_chart",
        "link": link,
        "active": lambda request: request.path == link,
    }


def _simulator(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the link to the simulator, for managers."""
    if not access.can_somewhere(request.user, access.Role.MANAGER):
        return []
    link = reverse("admin:simulator")
    return [{"title": gettext("Simulator"), "icon": "smartphone", "link": link, "active": _in_simulator}]


def account_links(request: HttpRequest) -> list[dict[str, str]]:
    """Return the links of the menu beside the user's name."""
    if not request.user.is_authenticated:
        return []
    links = [
        {"title": gettext("My settings"), "link": reverse("me:settings")},
        {"title": gettext("Second factor"), "link": reverse("mfa_index")},
    ]
    if access.can_somewhere(request.user, access.Role.AGENT):
        links.insert(1, {"title": gettext("E-mails"), "link": reverse("mail_choice")})
    if request.user.has_usable_password():
        links.append({"title": gettext("Change password"), "link": reverse("admin:password_change")})
    return links


def _in_simulator(request: HttpRequest) -> bool:
    return "/simulator/" in request.path


def _in_channels(request: HttpRequest) -> bool:
    return address_of(ChannelAccount) in request.path and not _in_simulator(request)


def address_of(model: type[Model]) -> str:
    """Return the address of the table's list."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
