"""The list of conversations: its columns, its filters, and its search."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Coalesce, Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext
from unfold.decorators import display

from channels_out.kinds import Channel
from conversations.admin import access
from conversations.admin.action_types import ConversationAction
from conversations.admin.base import VisibleRowsFilter
from conversations.admin.conversation_actions import BULK_ACTIONS
from conversations.admin.long_list import LongChangeList, LongListAdmin
from conversations.admin.navigation import WAITING
from conversations.admin.transcript_panel import waits_for
from conversations.admin.transcript_view import plain_text
from conversations.models import SAID, WAITS_FOR_STAFF, Chunk, Contact, Conversation, Step, corrected_text
from conversations.services.history import search
from conversations.words import lazy as _

SNIPPET = 90  # characters of the last message
BEFORE = 20  # characters before a word that was searched for
CONTACTS_FOUND = 200
LEFT_OUT = "convo_left_out"  # an attribute of the request: sentences about what a search left out
FROM, TO, CLIENT, CHANNEL = "started_at__gte", "started_at__lt", "client__id__exact", "channel__exact"


# --- how it is narrowed down -----------------------------------------------------------------------------------------
class WaitsFor(admin.SimpleListFilter):
    """A filter by what a conversation waits for."""

    title = _("waits for")
    parameter_name = "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices: a member of staff, or a reply of the assistant."""
        return [("person", gettext("a person")), ("reply", gettext("a reply"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> QuerySet[Conversation]:
        """Return the conversations that wait. Each choice has its own partial index."""
        if self.value() == "person":
            return queryset.filter(WAITS_FOR_STAFF)
        return queryset.filter(reply_owed=True) if self.value() == "reply" else queryset


@dataclass(frozen=True, slots=True)
class DateLink:
    """One link of the date drill-down."""

    name: str
    link: str


class ConversationChangeList(LongChangeList):
    """One page of conversations. Steps, last messages and search results are read for the whole page at once."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page and what is shown beside each."""
        self.request = request
        super().get_results(request)
        _add_steps_and_last_messages(self.result_list)
        found = search.snippets_of(self.result_list, self.query)
        for conversation in self.result_list:
            conversation.found = found.get(conversation.pk)

    @property
    def bulk_actions(self) -> list[ConversationAction]:
        """Return the actions that the user may run on all conversations that match."""
        page: Any = self.model_admin
        return [
            action for action in BULK_ACTIONS.values() if action.bulk and page.has_role(self.request, action.bulk.role)
        ]

    @property
    def is_inbox(self) -> bool:
        """Return whether the list shows the conversations that wait for a person."""
        return self.request.GET.get(WaitsFor.parameter_name) == "person"

    @property
    def left_out(self) -> list[str]:
        """Return sentences that say what the search left out."""
        sentences: list[str] = getattr(self.request, LEFT_OUT, [])
        return sentences

    @property
    def filters_as_query(self) -> str:
        """Return the filters as a query string, for a page about all conversations that match."""
        return self.get_query_string(remove=["p"])

    @property
    def date_links(self) -> list[DateLink]:
        """Return the links of the date drill-down: years, then the months of a year, then the days of a month.

        They come from the calendar. Of the rows, only the date of the oldest conversation is read.
        """
        since, until = _time(self.params.get(FROM)), _time(self.params.get(TO))
        today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
        if since and until and until - since > timedelta(days=31):
            months = [since.replace(day=1, month=month) for month in range(1, 13)]
            found = [
                self._date_link(month, _days(month), date_format(month, "F")) for month in months if month <= today
            ]
            return [self._back(gettext("All dates")), *found]
        if since and until and until - since > timedelta(days=7):
            days = [since + timedelta(days=day) for day in range((until - since).days)]
            found = [self._date_link(day, 1, date_format(day, "j M")) for day in days if day <= today]
            year = since.replace(day=1, month=1)
            return [self._date_link(year, 366 if calendar.isleap(year.year) else 365, f"← {year.year}"), *found]
        if since:
            month = since.replace(day=1)
            return [
                self._back(gettext("All dates")),
                self._date_link(month, _days(month), f"← {date_format(month, 'F Y')}"),
            ]
        oldest = self.root_queryset.order_by("started_at", "id").values_list("started_at", flat=True).first() or today
        years = [today.replace(year=year, month=1, day=1) for year in range(oldest.year, today.year + 1)]
        return [
            self._date_link(today, 1, gettext("Today")),
            self._date_link(today - timedelta(days=1), 1, gettext("Yesterday")),
            self._date_link(today - timedelta(days=6), 7, gettext("Last 7 days")),
            *(self._date_link(year, 366 if calendar.isleap(year.year) else 365, str(year.year)) for year in years),
        ]

    def _date_link(self, since: datetime, days: int, name: str) -> DateLink:
        dates = {FROM: since.isoformat(), TO: (since + timedelta(days=days)).isoformat()}
        return DateLink(name, self.get_query_string(dates, ["p"]))

    def _back(self, name: str) -> DateLink:
        return DateLink(f"← {name}", self.get_query_string(remove=[FROM, TO, "p"]))


def _search_range(request: HttpRequest) -> search.SearchScope:
    """Return the range that the list's filters set for a search."""
    asked = request.GET
    channel = asked.get(CHANNEL, "")
    return search.SearchScope(channel if channel in set(Channel) else "", _time(asked.get(FROM)), _time(asked.get(TO)))


def _time(text: Any) -> datetime | None:
    """Return a time of the query string in the reader's zone, or None if it is no time with a zone."""
    try:
        found = parse_datetime(str(text[0] if isinstance(text, list) else text))
    except ValueError:
        return None
    return timezone.localtime(found) if found and found.tzinfo else None


def _days(month: datetime) -> int:
    return calendar.monthrange(month.year, month.month)[1]


def _add_steps_and_last_messages(conversations: Sequence[Any]) -> None:
    """Set `steps_done`, `steps_all` and `last_message` of each conversation, in two queries."""
    ids = [conversation.pk for conversation in conversations]
    clients = {conversation.client_id for conversation in conversations}
    counted = Step.objects.filter(client__in=clients, conversation__in=ids).order_by().values("conversation")
    steps = {
        each["conversation"]: (each["done"], each["all"])
        for each in counted.annotate(all=Count("pk"), done=Count("pk", filter=Q(status=Step.Status.COMPLETE)))
    }
    newest = Chunk.objects.filter(client__in=clients, conversation__in=ids)
    newest = newest.filter(position=F("conversation__last_position"), role__in=SAID)
    said = dict(newest.values_list("conversation", Left(corrected_text(among=clients), SNIPPET)))
    for conversation in conversations:
        conversation.steps_done, conversation.steps_all = steps.get(conversation.pk, (0, 0))
        conversation.last_message = said.get(conversation.pk, "")


DUE_SUMMARIES = "rolling_summary__due_at__lte"


# --- the list --------------------------------------------------------------------------------------------------------
class ConversationList(LongListAdmin):
    """The admin list of conversations. Every filter and every search uses an index."""

    client_path = "client"
    empty_message = _("Nobody has written yet. Play a customer in the simulator, or connect a channel.")
    change_list_template = "admin/conversation_list/conversation_list.html"
    list_display = ("person", "state", "channel", "last_said", "steps_done", "waiting", "client", "who_has_it", "began")
    list_display_links = ("person",)
    list_filter = ("status", "channel", WaitsFor, "is_guest", ("client", VisibleRowsFilter))
    list_select_related = ("contact", "client", "assistant")
    ordering = ("-started_at", "-id")
    search_fields = ("id",)
    search_help_text = _(
        "Words of a message, a contact's user id, the beginning of a phone number, or a conversation id"
    )

    class Media:
        css = {"all": ["conversations/conversation_list.css"]}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Return whether an address may filter by it; the dashboard's does by summaries that are due."""
        return lookup == DUE_SUMMARIES or super().lookup_allowed(lookup, value, request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the class of the list."""
        return ConversationChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the conversations with this id, with this contact (user id or phone), or with these words.

        Contacts and words are searched first, so that the conversations are looked up by their ids.
        """
        term = search_term.strip().replace("\x00", "")
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            people = self._people(request).filter(_named(term)).values_list(Coalesce("merged_into", "pk"), flat=True)
            found = Q(contact__in=list(people[:CONTACTS_FOUND]))
            clients = access.clients_of(request.user).order_by("name", "pk").values_list("pk", flat=True)
            said = search.search(self._chosen(request, list(clients)), term, _search_range(request))
            setattr(request, LEFT_OUT, said.left_out)
            return queryset.filter(found | Q(pk__in=said.sessions) if said.sessions else found), False

    def _chosen(self, request: HttpRequest, clients: list[UUID]) -> list[UUID]:
        """Return the client of the list's filter, or all clients."""
        chosen = request.GET.get(CLIENT)
        return [client for client in clients if str(client) == chosen] if chosen else clients

    def _people(self, request: HttpRequest) -> QuerySet[Contact]:
        page: Any = self.admin_site._registry[Contact]
        people: QuerySet[Contact] = page.get_queryset(request)
        return people

    @admin.display(description=_("Contact"))
    def person(self, conversation: Conversation) -> str:
        """Return the contact's name and phone."""
        contact = conversation.contact
        below = contact.phone or (contact.user_id if contact.shown_name else "")
        return format_html(
            '<div><span class="sl-name"><bdi>{}</bdi></span><span class="sl-small"><bdi>{}</bdi>{}</span></div>',
            plain_text(str(contact)),
            plain_text(below),
            f" {gettext('opted out')}" if conversation.channel in contact.opted_out else "",
        )

    @display(  # type: ignore[untyped-decorator]
        description=_("Status"),
        label={"active": "success", "stale": "warning", "expired": "info", "closed": "info", "archived": "info"},
    )
    def state(self, conversation: Conversation) -> tuple[str, str]:
        """Return the status, and the word for it."""
        return conversation.status, conversation.get_status_display().lower()

    @admin.display(description=_("Last message"))
    def last_said(self, conversation: Any) -> str:
        """Return the last message and its age. In a search: the text that matches, as a link to it."""
        if conversation.found:
            return _found(conversation)
        recent = timezone.now() - conversation.last_message_at < timedelta(minutes=1)
        age = (
            gettext("just now")
            if recent
            else gettext("%(timesince)s ago") % {"timesince": timesince(conversation.last_message_at, depth=1)}
        )
        text = " ".join(conversation.last_message.split())
        return format_html(
            '<div><span class="sl-said" dir="auto">{}</span><span class="sl-small">{}</span></div>',
            plain_text(text),
            age,
        )

    @admin.display(description=_("Steps"))
    def steps_done(self, conversation: Any) -> str:
        """Return how many steps are complete, of how many."""
        return f"{conversation.steps_done}/{conversation.steps_all}" if conversation.steps_all else ""

    def empty_message_for(self, request: HttpRequest, *, is_narrowed: bool) -> str:
        """Return what the list says if it is empty. The inbox has a sentence of its own."""
        if request.GET.dict() == WAITING:
            return gettext("Nobody waits for a person.")
        return super().empty_message_for(request, is_narrowed=is_narrowed)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return the order: newest first. The inbox shows who has waited longest first."""
        if request.GET.get(WaitsFor.parameter_name) == "person":
            return [Coalesce("needs_staff_since", "burst_began_at", "reply_due_at").asc(), "id"]
        return self.ordering

    @display(  # type: ignore[untyped-decorator]
        description=_("Waits for"), label={"person": "danger", "reply": "warning"}
    )
    def waiting(self, conversation: Conversation) -> Any:
        """Return what it waits for, and how long it has waited for a person."""
        if since := conversation.waits_for_staff_since:
            return "person", gettext("a person, %(time)s") % {"time": timesince(since, depth=1)}
        return ("reply", gettext("a reply")) if waits_for(conversation) else None

    @admin.display(description=_("Who has it"))
    def who_has_it(self, conversation: Conversation) -> str:
        """Return the assistant, or the member of staff who took it over."""
        if not (conversation.is_open and conversation.taken_over_at):
            return str(conversation.assistant or "")
        return format_html(
            '<div><span class="sl-name">{}</span><span class="sl-small">{}</span></div>',
            conversation.taken_over_name or gettext("nobody yet"),
            gettext("since %(at)s") % {"at": f"{timezone.localtime(conversation.taken_over_at):%H:%M}"},
        )

    @admin.display(description=_("Started"))
    def began(self, conversation: Conversation) -> str:
        """Return the time of its start."""
        return format_html(
            '<span class="sl-date">{}</span>', f"{timezone.localtime(conversation.started_at):%Y-%m-%d %H:%M}"
        )


def _found(conversation: Any) -> SafeString:
    """Return the text that matches the search, with the words marked, as a link to the message."""
    found, parts = conversation.found, []
    upto = _beginning(found.text, found.highlights[0][0]) if found.highlights else 0
    cut = "…" if upto else ""
    for start, end in found.highlights:
        parts += [(plain_text(found.text[upto:start]), plain_text(found.text[start:end]))]
        upto = end
    text = format_html("{}{}{}", cut, format_html_join("", "{}<mark>{}</mark>", parts), plain_text(found.text[upto:]))
    at = f"?at={found.position}" if found.position else ""
    return format_html(
        '<div><a class="sl-said" dir="auto" href="{}{}">{}</a><span class="sl-small">{}</span></div>',
        reverse("admin:conversations_conversation_change", args=[conversation.pk]),
        at,
        text,
        gettext("message %(position)s") % {"position": found.position} if found.position else gettext("summary"),
    )


def _beginning(text: str, first: int) -> int:
    """Return where the shown text begins, so that the first word searched for is in its two lines."""
    return text.rfind(" ", 0, first - BEFORE) + 1 if first > 2 * BEFORE else 0


def _named(term: str) -> Q:
    """Return the condition for contacts with this user id, or whose phone begins with these digits."""
    digits = "".join(each for each in term if each.isdigit() and each.isascii())
    looks_like_a_phone = len(digits) >= 4 and not term.strip("+0123456789 ()-./")
    return Q(user_id=term) | Q(phone__startswith=f"+{digits}") if looks_like_a_phone else Q(user_id=term)
