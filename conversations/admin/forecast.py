"""The forecast of a conversation: what happens to it next and when, and why past events happened when they did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_GET

from conversations.admin.base import Breadcrumb
from conversations.admin.channel_names import name_of
from conversations.admin.ledger_words import name_of as name_of_event
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_panel import TIMELINE_EVENTS, TimelineEvent, timeline_event
from conversations.admin.transcript_view import title_of
from conversations.services.jobs import forecast
from conversations.services.retention import holds


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event of the timeline with the rule that caused it."""

    event: TimelineEvent
    rule: str


class ForecastPage(LongListAdmin):
    """The forecast page of each conversation."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page's address before Django's, whose last pattern matches everything."""
        view = self.admin_site.admin_view(require_GET(self.forecast))
        return [path("<uuid:pk>/clock/", view, name="conversations_conversation_clock"), *super().get_urls()]

    def forecast(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the page. It changes nothing."""
        related = ("contact", "client", "assistant", "channel_account")
        conversation = self.to_look_up(request).select_related(*related).filter(pk=pk).first()
        if conversation is None:
            raise Http404
        now = timezone.now()
        upcoming = forecast.upcoming_events(conversation, now)
        past = conversation.events.order_by("-id")[:TIMELINE_EVENTS]
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Forecast of %(title_of)s") % {"title_of": title_of(conversation)},
            "object": Breadcrumb(conversation, title_of(conversation)),
            "conversation": conversation,
            "channel": name_of(conversation.channel),
            "hold": holds.hold_reason(conversation),
            "now": now,
            "next": forecast.next_event(upcoming),
            "upcoming": [replace(each, after=each.after and name_of_event(each.after)) for each in upcoming],
            "past": [PastEvent(timeline_event(event), forecast.rule_of_event(event.data)) for event in past],
        }
        response = TemplateResponse(request, "admin/forecast/forecast.html", context)
        response["Cache-Control"] = "no-store"
        return response
