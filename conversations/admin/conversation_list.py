"""The list of sessions: what it shows, how it is narrowed down, and how one of a million is found."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Coalesce, Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.decorators import display

from channels_out.kinds import Channel
from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.base import ClientsOwn
from conversations.admin.entries import plainly, waits_for
from conversations.admin.long_list import LongChangeList, LongList
from conversations.admin.navigation import WAITING
from conversations.models import SAID, WAITS_FOR_STAFF, Chunk, Contact, Conversation, Step, corrected_text
from conversations.services.history import search

SNIPPET = 90
BEFORE = 20  # characters before a word that was searched for
CONTACTS_FOUND = 200
LEFT_OUT = "convo_left_out"  # of the request: what a search did not look at, in sentences
FROM, TO, CLIENT, CHANNEL = "started_at__gte", "started_at__lt", "client__id__exact", "channel__exact"


# --- how it is narrowed down -----------------------------------------------------------------------------------------
class WaitsFor(admin.SimpleListFilter):
    """What a session waits for."""

    title = "waits for"
    parameter_name = "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """A person of ours, or the assistant."""
        return [("person", "a person"), ("reply", "a reply")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Conversation]) -> QuerySet[Conversation]:
        """Each by its own partial index."""
        if self.value() == "person":
            return queryset.filter(WAITS_FOR_STAFF)
        return queryset.filter(reply_owed=True) if self.value() == "reply" else queryset


@dataclass(frozen=True, slots=True)
class Span:
    """A link of the date drill-down."""

    name: str
    link: str


class SessionChangeList(LongChangeList):
    """Sessions, the newest first, with what is said of each read for the whole page at once."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page."""
        self.request = request
        super().get_results(request)
        _describe(self.result_list)
        found = search.shown_of(self.result_list, self.query)
        for session in self.result_list:
            session.found = found.get(session.pk)

    @property
    def may_manage(self) -> bool:
        """Whether what matches can be changed by whoever looks."""
        page: Any = self.model_admin
        return bool(page.may(self.request, Role.MANAGER))

    @property
    def is_inbox(self) -> bool:
        """Whether these are the sessions that wait for a person."""
        return self.request.GET.get(WaitsFor.parameter_name) == "person"

    @property
    def left_out(self) -> list[str]:
        """Where a search did not look, in sentences."""
        sentences: list[str] = getattr(self.request, LEFT_OUT, [])
        return sentences

    @property
    def filters_as_query(self) -> str:
        """The filters, for a page about all that match."""
        return self.get_query_string(remove=["p"])

    @property
    def spans(self) -> list[Span]:
        """Where the date drill-down leads from here: years, then a year's months, then a month's days.

        They come from the calendar, not from the rows: only the first session's date is looked up.
        """
        since, until = _time(self.params.get(FROM)), _time(self.params.get(TO))
        today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        if since and until and until - since > timedelta(days=31):
            months = [since.replace(day=1, month=month) for month in range(1, 13)]
            found = [self._span(month, _days(month), f"{month:%B}") for month in months if month <= today]
            return [self._back("All dates"), *found]
        if since and until and until - since > timedelta(days=7):
            days = [since + timedelta(days=day) for day in range((until - since).days)]
            found = [self._span(day, 1, f"{day.day} {day:%b}") for day in days if day <= today]
            year = since.replace(day=1, month=1)
            return [self._span(year, 366 if calendar.isleap(year.year) else 365, f"← {year.year}"), *found]
        if since:
            month = since.replace(day=1)
            return [self._back("All dates"), self._span(month, _days(month), f"← {month:%B %Y}")]
        oldest = self.root_queryset.order_by("started_at", "id").values_list("started_at", flat=True).first() or today
        years = [today.replace(year=year, month=1, day=1) for year in range(oldest.year, today.year + 1)]
        return [
            self._span(today, 1, "Today"),
            self._span(today - timedelta(days=1), 1, "Yesterday"),
            self._span(today - timedelta(days=6), 7, "Last 7 days"),
            *(self._span(year, 366 if calendar.isleap(year.year) else 365, str(year.year)) for year in years),
        ]

    def _span(self, since: datetime, days: int, name: str) -> Span:
        span = {FROM: since.isoformat(), TO: (since + timedelta(days=days)).isoformat()}
        return Span(name, self.get_query_string(span, ["p"]))

    def _back(self, name: str) -> Span:
        return Span(f"← {name}", self.get_query_string(remove=[FROM, TO, "p"]))


def _place(request: HttpRequest) -> search.SearchScope:
    """Where the list's filters have a search look."""
    asked = request.GET
    channel = asked.get(CHANNEL, "")
    return search.SearchScope(channel if channel in set(Channel) else "", _time(asked.get(FROM)), _time(asked.get(TO)))


def _time(text: Any) -> datetime | None:
    """A moment of the query string, in UTC; None for anything else."""
    try:
        found = parse_datetime(str(text[0] if isinstance(text, list) else text))
    except ValueError:
        return None
    return found.astimezone(UTC) if found and found.tzinfo else None


def _days(month: datetime) -> int:
    return calendar.monthrange(month.year, month.month)[1]


def _describe(sessions: Sequence[Any]) -> None:
    """Each session knows its steps and what was said last; two queries, whatever their number."""
    ids = [session.pk for session in sessions]
    counted = Step.objects.filter(conversation__in=ids).order_by().values("conversation")
    steps = {
        each["conversation"]: (each["done"], each["all"])
        for each in counted.annotate(all=Count("pk"), done=Count("pk", filter=Q(status=Step.Status.COMPLETE)))
    }
    newest = Chunk.objects.filter(conversation__in=ids, position=F("conversation__last_position"), role__in=SAID)
    said = dict(newest.values_list("conversation", Left(corrected_text(), SNIPPET)))
    for session in sessions:
        session.steps_done, session.steps_all = steps.get(session.pk, (0, 0))
        session.said_last = said.get(session.pk, "")


# --- the list --------------------------------------------------------------------------------------------------------
class SessionList(LongList):
    """Finds sessions by whom they are with; filters and dates run along an index."""

    client_path = "client"
    nothing = "Nobody has written yet. Play a customer in the simulator, or connect a channel."
    list_display = ("person", "state", "channel", "last_said", "steps_done", "waiting", "client", "who_has_it", "began")
    list_display_links = ("person",)
    list_filter = ("status", "channel", WaitsFor, "is_guest", ("client", ClientsOwn))
    list_select_related = ("contact", "client", "assistant")
    ordering = ("-started_at", "-id")
    search_fields = ("id",)
    search_help_text = "Words that were said, a contact's user id, the beginning of a phone number, or a session id"

    class Media:
        css = {"all": ["conversations/sessions.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """The list."""
        return SessionChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Sessions by their id, their contact's user id or phone, or by what was said in them. Contacts and words are
        found first, so that their sessions are looked up one by one, however many others there are."""
        term = search_term.strip().replace("\x00", "")
        if not term:
            return queryset, False
        try:
            return queryset.filter(pk=UUID(term)), False
        except ValueError:
            people = self._people(request).filter(_named(term)).values_list(Coalesce("merged_into", "pk"), flat=True)
            found = Q(contact__in=list(people[:CONTACTS_FOUND]))
            clients = access.clients_of(request.user).order_by("name", "pk").values_list("pk", flat=True)
            said = search.search(self._chosen(request, list(clients)), term, _place(request))
            setattr(request, LEFT_OUT, said.left_out)
            return queryset.filter(found | Q(pk__in=said.sessions) if said.sessions else found), False

    def _chosen(self, request: HttpRequest, clients: list[UUID]) -> list[UUID]:
        """The client that the list is narrowed to, else all of them."""
        chosen = request.GET.get(CLIENT)
        return [client for client in clients if str(client) == chosen] if chosen else clients

    def _people(self, request: HttpRequest) -> QuerySet[Contact]:
        page: Any = self.admin_site._registry[Contact]
        people: QuerySet[Contact] = page.get_queryset(request)
        return people

    @admin.display(description="Contact")
    def person(self, session: Conversation) -> str:
        """Who it is with."""
        contact = session.contact
        below = contact.phone or (contact.user_id if contact.name else "")
        return format_html(
            '<div><span class="sl-name"><bdi>{}</bdi></span><span class="sl-small"><bdi>{}</bdi>{}</span></div>',
            plainly(str(contact)),
            plainly(below),
            " opted out" if session.channel in contact.opted_out else "",
        )

    @display(  # type: ignore[untyped-decorator]
        description="Status",
        label={"active": "success", "stale": "warning", "expired": "info", "closed": "info", "archived": "info"},
    )
    def state(self, session: Conversation) -> str:
        """Where it is in its life."""
        return session.status

    @admin.display(description="Last message")
    def last_said(self, session: Any) -> str:
        """What was said last, and how long ago; in a search, what answers it, with a way there."""
        if session.found:
            return _found(session)
        recent = timezone.now() - session.last_message_at < timedelta(minutes=1)
        age = "just now" if recent else f"{timesince(session.last_message_at, depth=1)} ago"
        text = " ".join(session.said_last.split())
        return format_html(
            '<div><span class="sl-said" dir="auto">{}</span><span class="sl-small">{}</span></div>',
            plainly(text),
            age,
        )

    @admin.display(description="Steps")
    def steps_done(self, session: Any) -> str:
        """How many are done, of how many."""
        return f"{session.steps_done}/{session.steps_all}" if session.steps_all else ""

    def nothing_in(self, request: HttpRequest, *, is_narrowed: bool) -> str:
        """The inbox has a sentence of its own."""
        if request.GET.dict() == WAITING:
            return "Nobody waits for a person."
        return super().nothing_in(request, is_narrowed=is_narrowed)

    def get_ordering(self, request: HttpRequest) -> Any:
        """The newest first; those that wait for a person, who has waited longest."""
        if request.GET.get(WaitsFor.parameter_name) == "person":
            return [Coalesce("needs_staff_since", "burst_began_at", "reply_due_at").asc(), "id"]
        return self.ordering

    @display(  # type: ignore[untyped-decorator]
        description="Waits for", label={"a person": "danger", "a reply": "warning"}
    )
    def waiting(self, session: Conversation) -> Any:
        """Whom it waits for, and how long it has waited for a person."""
        if since := session.waits_for_staff_since:
            return "a person", f"a person, {timesince(since, depth=1)}"
        return waits_for(session) or None

    @admin.display(description="Who has it")
    def who_has_it(self, session: Conversation) -> str:
        """Its assistant, or a person."""
        if not (session.is_open and session.taken_over_at):
            return str(session.assistant or "")
        return format_html(
            '<div><span class="sl-name">{}</span><span class="sl-small">since {}</span></div>',
            session.taken_over_name or "nobody yet",
            f"{session.taken_over_at:%H:%M}",
        )

    @admin.display(description="Started")
    def began(self, session: Conversation) -> str:
        """When it began."""
        return format_html('<span class="sl-date">{}</span>', f"{session.started_at:%Y-%m-%d %H:%M}")


def _found(session: Any) -> SafeString:
    """What of the session answers the search, with the words that were asked for, as a link to that entry."""
    found, parts = session.found, []
    upto = _beginning(found.text, found.highlights[0][0]) if found.highlights else 0
    cut = "…" if upto else ""
    for start, end in found.highlights:
        parts += [(plainly(found.text[upto:start]), plainly(found.text[start:end]))]
        upto = end
    text = format_html("{}{}{}", cut, format_html_join("", "{}<mark>{}</mark>", parts), plainly(found.text[upto:]))
    at = f"?at={found.position}" if found.position else ""
    return format_html(
        '<div><a class="sl-said" dir="auto" href="{}{}">{}</a><span class="sl-small">{}</span></div>',
        reverse("admin:conversations_conversation_change", args=[session.pk]),
        at,
        text,
        f"entry {found.position}" if found.position else "summary",
    )


def _beginning(text: str, first: int) -> int:
    """Where what is shown begins, so that the first word that was asked for is in the two lines that there are."""
    return text.rfind(" ", 0, first - BEFORE) + 1 if first > 2 * BEFORE else 0


def _named(term: str) -> Q:
    """Whose user id it is, or whose phone begins like that, however it is written."""
    digits = "".join(each for each in term if each.isdigit() and each.isascii())
    looks_like_a_phone = len(digits) >= 4 and not term.strip("+0123456789 ()-./")
    return Q(user_id=term) | Q(phone__startswith=f"+{digits}") if looks_like_a_phone else Q(user_id=term)
