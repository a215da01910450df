"""Inbound events that did not become a message: why, their raw body, and replaying them."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from unfold.decorators import display

from conversations.admin.access import Role
from conversations.admin.base import ReadOnlyAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import plain_text
from conversations.models import InboundEvent, RefusedWebhooks
from conversations.services.inbound import replay as replay_service
from conversations.words import lazy as _
from conversations.words import shown

LONGEST_RAW = 50_000  # characters that are shown
REASONS = {
    "processing_failed": _("processing failed"),
    "unknown_account": _("unknown account"),
    "malformed": _("malformed"),
    "unknown_type": _("unknown type"),
    "receipt_unmatched": _("receipt without its message"),
}
NOT_ALLOWED = _("You may not replay these events.")


class SettledFilter(admin.SimpleListFilter):
    """A filter by whether a replay settled the event."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices: open or settled."""
        return [("open", gettext("open")), ("settled", gettext("settled by a replay"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[InboundEvent]) -> QuerySet[InboundEvent]:
        """Return the events in the chosen state."""
        return queryset.filter(settled_at__isnull=self.value() == "open") if self.value() else queryset


@admin.register(InboundEvent)
class InboundEventAdmin(LongListAdmin):
    """Inbound events that did not become a message. Agents replay them."""

    client_path = "client"
    empty_message = _("Every event was processed.")
    replay_role = Role.AGENT
    list_display = ["received_at", "kind", "why", "channel", "provider", "address", "client", "state"]
    list_filter = ["reason", "channel", "provider", SettledFilter, ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["message_id__exact", "address__exact"]
    search_help_text = _("The provider's id of a message, or the address of an account")
    actions = ["replay_selected"]
    actions_detail = ["replay"]
    fields = [
        ("received_at", "reason"),
        ("kind", "message_id"),
        ("channel", "provider", "address"),
        ("client", "channel_account"),
        ("attempts", "retry_at"),
        ("settled_at", "outcome_in_words"),
        "raw_body",
    ]
    readonly_fields = ["raw_body", "outcome_in_words"]

    def has_replay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may replay the event. Without an event: any event."""
        return self.has_role(request, self.replay_role, obj)

    @confirmed(
        _("Replay"),
        question=_("The event is processed again, as if it arrived now. What it already caused is not repeated."),
        icon="replay",
        path="replay",
        permission="replay",
    )
    def replay(self, request: HttpRequest, event: InboundEvent) -> str:
        """Process the event again."""
        self.record(request, "replayed", event)
        return shown(replay_service.replay(event.pk, timezone.now()).sentence)

    @admin.action(description=_("Replay"), permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[InboundEvent]) -> None:
        """Process the selected events again, the oldest first."""
        allowed = [event for event in queryset.order_by("id") if self.has_replay_permission(request, event)]
        for event in allowed:
            self.record(request, "replayed", event)
        settled = sum(replay_service.replay(event.pk, timezone.now()).settled for event in allowed)
        said = (
            gettext("%(settled)s of %(allowed)s events are settled. Each other one says why it is not.")
            % {"settled": settled, "allowed": len(allowed)}
            if allowed
            else NOT_ALLOWED
        )
        self.message_user(request, said, messages.SUCCESS if settled == len(allowed) > 0 else messages.WARNING)

    @display(  # type: ignore[untyped-decorator]
        description=_("Reason"),
        label={
            "processing_failed": "danger",
            "unknown_account": "danger",
            "malformed": "warning",
            "unknown_type": "warning",
        },
    )
    def why(self, event: InboundEvent) -> tuple[str, str]:
        """Return why it did not become a message, and the words for it."""
        return event.reason, str(REASONS.get(event.reason) or event.reason.replace("_", " "))

    @admin.display(description=_("outcome"))
    def outcome_in_words(self, event: InboundEvent) -> str:
        """Return what came of the last replay."""
        return shown(event.outcome)

    @display(description=_("State"), label={"settled": "success", "retried": "warning"})  # type: ignore[untyped-decorator]
    def state(self, event: InboundEvent) -> tuple[str, str] | None:
        """Return whether it is settled or will be retried automatically, and the words for it."""
        if event.settled_at:
            return "settled", gettext("settled")
        return ("retried", gettext("will be retried")) if event.retry_at else None

    @admin.display(description=_("Raw body"))
    def raw_body(self, event: InboundEvent) -> SafeString:
        """Return the raw body as it is stored, shortened."""
        written = json.dumps(event.raw, indent=2, ensure_ascii=False)
        cut = written if len(written) <= LONGEST_RAW else written[:LONGEST_RAW] + "\n…"
        return format_html('<pre class="raw-body" dir="auto">{}</pre>', plain_text(cut))


@admin.register(RefusedWebhooks)
class RefusedWebhooksAdmin(ReadOnlyAdmin):
    """Webhooks with an invalid signature, counted by day and account."""

    client_path = "channel_account__client"
    empty_message = _("No webhook had an invalid signature.")
    list_display = ["day", "channel", "provider", "channel_account", "count", "last_at"]
    list_filter = ["channel", "provider"]
    list_select_related = ["channel_account__client"]
