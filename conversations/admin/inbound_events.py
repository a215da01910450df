"""What arrived and is no chunk: looked at, narrowed down, and replayed once the reason is put right."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from conversations.admin.access import Role
from conversations.admin.base import ClientsOwn, ReadOnlyPage
from conversations.admin.confirmed import confirmed
from conversations.admin.entries import plainly
from conversations.admin.long_list import LongList
from conversations.models import InboundEvent, RefusedWebhooks
from conversations.services.inbound import replay as replaying

LONGEST_RAW = 50_000  # characters that are shown


class Settled(admin.SimpleListFilter):
    """Whether what it brought is where it belongs."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Open, or settled."""
        return [("open", "open"), ("settled", "settled by a replay")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundEvent]) -> QuerySet[InboundEvent]:
        """Narrowed down."""
        return queryset.filter(settled_at__isnull=self.value() == "open") if self.value() else queryset


@admin.register(InboundEvent)
class InboundEventAdmin(LongList):
    """What arrived and is no chunk."""

    client_path = "client"
    nothing = "All that arrived became part of a session."
    to_replay = Role.AGENT
    list_display = ["received_at", "kind", "why", "channel", "provider", "address", "client", "state"]
    list_filter = ["reason", "channel", "provider", Settled, ("client", ClientsOwn)]
    list_select_related = ["client"]
    search_fields = ["message_id__exact", "address__exact"]
    search_help_text = "The provider's id of a message, or the address of an account"
    actions = ["replay_selected"]
    actions_detail = ["replay"]
    fields = [
        ("received_at", "reason"),
        ("kind", "message_id"),
        ("channel", "provider", "address"),
        ("client", "channel_account"),
        ("attempts", "retry_at"),
        ("settled_at", "outcome"),
        "what_came",
    ]
    readonly_fields = ["what_came"]

    def has_replay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may replay the event; any at all, where none is given."""
        return self.may(request, self.to_replay, obj)

    @confirmed(
        "Replay",
        question="What arrived is put through once more, as if it came now. What is there already stays as it is.",
        icon="replay",
        path="replay",
        permission="replay",
    )
    def replay(self, request: HttpRequest, event: InboundEvent) -> str:
        """Try it once more."""
        self.note(request, "replayed", event)
        return replaying.replay(event.pk, timezone.now()).sentence

    @admin.action(description="Replay", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[InboundEvent]) -> None:
        """Try them once more, the oldest first."""
        theirs = [event for event in queryset.order_by("id") if self.has_replay_permission(request, event)]
        for event in theirs:
            self.note(request, "replayed", event)
        settled = sum(replaying.replay(event.pk, timezone.now()).settled for event in theirs)
        said = f"{settled} of {len(theirs)} are settled; each says why not." if theirs else "None of them is yours."
        self.message_user(request, said, messages.SUCCESS if settled == len(theirs) > 0 else messages.WARNING)

    @display(  # type: ignore[untyped-decorator]
        description="Reason",
        label={
            "processing failed": "danger",
            "unknown account": "danger",
            "malformed": "warning",
            "unknown type": "warning",
        },
    )
    def why(self, event: InboundEvent) -> str:
        """Why it is no chunk."""
        return event.reason.replace("_", " ")

    @display(description="State", label={"settled": "success", "tried again": "warning"})  # type: ignore[untyped-decorator]
    def state(self, event: InboundEvent) -> str | None:
        """Whether it is settled, or will be tried again by itself."""
        if event.settled_at:
            return "settled"
        return "tried again" if event.retry_at else None

    @admin.display(description="What came")
    def what_came(self, event: InboundEvent) -> SafeString:
        """The raw body, as it was kept."""
        written = json.dumps(event.raw, indent=2, ensure_ascii=False)
        shown = written if len(written) <= LONGEST_RAW else written[:LONGEST_RAW] + "\n…"
        return format_html('<pre class="kept-body" dir="auto">{}</pre>', plainly(shown))


@admin.register(RefusedWebhooks)
class RefusedWebhooksAdmin(ReadOnlyPage):
    """Webhooks with a bad signature, counted by day and by the account that they named."""

    client_path = "channel_account__client"
    nothing = "No webhook came with a bad signature."
    list_display = ["day", "channel", "provider", "channel_account", "count", "last_at"]
    list_filter = ["channel", "provider"]
    list_select_related = ["channel_account__client"]
