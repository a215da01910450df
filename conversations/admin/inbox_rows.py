"""The rows of the inbox's lists as HTML.

Browsers read their lists again whenever something has changed. Most rows have not changed, or in nothing but the last
words and their time, and they read the same for every colleague. So each process keeps the HTML of the last rows that
it rendered, in its memory alone, with a place for these two. The key is all the rest that the HTML is made of: a row
that differs in anything else, language and time zone included, is rendered anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from conversations.admin import promise_view, transcript_view
from conversations.admin.channel_names import icon_of, name_of
from conversations.admin.promise_view import Clock
from conversations.models import Status
from conversations.services.desk import inbox
from conversations.services.desk.inbox import InboxRow, Order, Tab
from conversations.services.tenants.promises import Promise
from conversations.words import lazy as _

KEPT = 1_000  # rows, of some 2 kB each
MINUTES = 10_000  # that were written as text
WORDS, TIME = mark_safe("\0words\0"), mark_safe("\0time\0")  # PostgreSQL keeps no NUL in a text
PRIORITIES = {1: _("High"), 2: _("Urgent")}  # that the list names


def _but(kind: Any, *left_out: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return what returns the values of all fields of a dataclass but for these."""
    return attrgetter(*(field.name for field in fields(kind) if field.name not in left_out))


@dataclass(frozen=True, slots=True)
class InboxList:
    """The list that a row is in. names_clients: the user has several clients."""

    tab: Tab
    order: Order
    names_clients: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as a user sees it.

    is_open: the conversation is open beside the list
    at: the position of the message that was searched for
    snippet: parts of it, each with whether it was searched for
    time: of the last message, or of the end, as HTML
    """

    row: InboxRow
    in_list: InboxList
    name: str
    words: str
    time: SafeString
    channel: str
    icon: str
    status: str
    is_mine: bool
    priority: str
    promise: Clock | None
    is_open: bool = False
    at: int | None = None
    snippet: tuple[tuple[str, bool], ...] = ()

    @property
    def html(self) -> SafeString:
        """Return the row in the language and the time zone of the request."""
        html = _html(_Rest(self), get_language() or "", timezone.get_current_timezone_name())
        return mark_safe(html.replace(WORDS, escape(self.words)).replace(TIME, self.time))  # noqa: S308


class _Rest:
    """A row but for its last words and their time: two that differ in nothing else are equal."""

    def __init__(self, shown: ShownRow) -> None:
        self.shown = shown
        self._key = (*_OF_ROW(shown.row), *map(tuple, shown.row.labels), *_OF_SHOWN(shown), bool(shown.words))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rest) and self._key == other._key


_OF_ROW = _but(InboxRow, "last_at", "words", "words_position", "labels")
_OF_SHOWN = _but(ShownRow, "row", "words", "time")


@lru_cache(maxsize=KEPT)
def _html(rest: _Rest, _language: str, _zone: str) -> SafeString:
    each = replace(rest.shown, words=WORDS if rest.shown.words else "", time=TIME)
    return render_to_string("admin/inbox/_row.html", {"each": each})


@lru_cache(maxsize=MINUTES)
def _minute(local: datetime, _language: str) -> str:
    return escape(date_format(local, "j M H:i"))


def shown(
    found: Sequence[InboxRow],
    user_id: int,
    in_list: InboxList,
    open_id: UUID | None = None,
    promised: Mapping[UUID, Promise] | None = None,
) -> list[ShownRow]:
    """Return the rows as the user sees them.

    open_id: the conversation that is open beside the list
    promised: what is to be kept next in them, where it is known already
    """
    promised, now = inbox.next_promises(found) if promised is None else promised, timezone.now()
    language, zone = get_language() or "", timezone.get_current_timezone()
    statuses = {status: Status(status).label.lower() for status in {row.status for row in found}}

    def time(at: datetime) -> SafeString:
        local = at.astimezone(zone)
        text = _minute(local.replace(second=0, microsecond=0, tzinfo=None), language)
        return mark_safe(f'<time class="ib-time" datetime="{local.isoformat()}" data-ago>{text}</time>')  # noqa: S308

    return [
        ShownRow(
            row,
            in_list,
            name=transcript_view.plain_text(row.name),
            words=transcript_view.plain_text(" ".join(row.words.split())),
            time=time(row.ended_at or row.last_at),
            channel=str(name_of(row.channel)),
            icon=icon_of(row.channel),
            status=statuses[row.status],
            is_mine=row.holder_id == user_id,
            priority=str(PRIORITIES.get(row.priority, "")),
            promise=promise_view.shown(promised.get(row.id), now),
            is_open=row.id == open_id,
        )
        for row in found
    ]
