"""The clock of a session: what happens next and when, and why what happened did so then."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_GET

from conversations.admin import entries
from conversations.admin.base import Crumb
from conversations.admin.entries import Line
from conversations.admin.long_list import LongList
from conversations.services.jobs import forecast
from conversations.services.retention import holds


@dataclass(frozen=True, slots=True)
class Because:
    """A line of the ledger with the rule that it came by."""

    line: Line
    rule: str


class ClockPages(LongList):
    """A page beside each session's own."""

    def get_urls(self) -> list[URLPattern]:
        """The page's own, before Django's, whose last one takes everything."""
        view = self.admin_site.admin_view(require_GET(self.clock))
        return [path("<uuid:pk>/clock/", view, name="conversations_conversation_clock"), *super().get_urls()]

    def clock(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The page. Nothing changes by it."""
        related = ("contact", "client", "assistant", "channel_account")
        conversation = self.get_queryset(request).select_related(*related).filter(pk=pk).first()
        if conversation is None:
            raise Http404
        now = timezone.now()
        prospects = forecast.of(conversation, now)
        happened = conversation.events.order_by("-id")[: entries.LEDGER_LINES]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"The clock of {entries.title_of(conversation)}",
            "object": Crumb(conversation, entries.title_of(conversation)),
            "conversation": conversation,
            "hold": holds.reason_for(conversation),
            "now": now,
            "next": forecast.next_of(prospects),
            "prospects": prospects,
            "happened": [Because(entries.line_of(event), forecast.why(event.data)) for event in happened],
        }
        response = TemplateResponse(request, "admin/conversations/conversation/clock.html", context)
        response["Cache-Control"] = "no-store"
        return response
