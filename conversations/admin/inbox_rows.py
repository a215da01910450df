"""The rows of the inbox's lists as HTML.

Browsers read their lists again whenever something has changed. Most rows have not changed, and read the same for every
colleague. So each process keeps the HTML of the last rows that it rendered, in its memory alone. The key is everything
that the HTML is made of: a row that differs in anything, language and time zone included, is rendered anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from conversations.admin import promise_view, transcript_view
from conversations.admin.channel_names import icon_of, name_of
from conversations.admin.promise_view import Clock
from conversations.models import Status
from conversations.services.desk import inbox
from conversations.services.desk.inbox import InboxRow, Order, Tab
from conversations.words import lazy as _

KEPT = 1_000  # rows, of some 2 kB each
PRIORITIES = {1: _("High"), 2: _("Urgent")}  # that the list names


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
    """

    row: InboxRow
    in_list: InboxList
    name: str
    words: str
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
        return _html(self, get_language() or "", timezone.get_current_timezone_name())


@lru_cache(maxsize=KEPT)
def _html(row: ShownRow, _language: str, _zone: str) -> SafeString:
    return render_to_string("admin/inbox/_row.html", {"each": row})


def shown(found: Sequence[InboxRow], user_id: int, in_list: InboxList, open_id: UUID | None = None) -> list[ShownRow]:
    """Return the rows as the user sees them. open_id: the conversation that is open beside the list"""
    promised, now = inbox.next_promises(found), timezone.now()
    return [
        ShownRow(
            row,
            in_list,
            name=transcript_view.plain_text(row.name),
            words=transcript_view.plain_text(" ".join(row.words.split())),
            channel=str(name_of(row.channel)),
            icon=icon_of(row.channel),
            status=Status(row.status).label.lower(),
            is_mine=row.holder_id == user_id,
            priority=str(PRIORITIES.get(row.priority, "")),
            promise=promise_view.shown(promised.get(row.id), now),
            is_open=row.id == open_id,
        )
        for row in found
    ]
