"""The lists of the inbox as JSON, for many users at once.

All open inboxes read their lists again when something has changed. Who asks for the same list of the same clients gets
it from one reading, and what reads the same is rendered once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from django.http import HttpRequest, QueryDict
from django.template.loader import render_to_string
from django.utils import timezone, translation

from conversations.admin import inbox_rows
from conversations.admin.inbox_rows import InboxList
from conversations.admin.inbox_views import client_ids_of
from conversations.services.desk import filters, inbox, tab_counts
from conversations.services.desk.filters import Filters
from conversations.services.desk.inbox import InboxPage, InboxRow, Tab
from conversations.services.tenants.promises import Promise
from conversations.words import lazy as _

log = logging.getLogger(__name__)

QUERIES = 500  # of addresses, that were read
EMPTY = {
    Tab.MINE: (_("You have no conversation."), _("Take one over from Unassigned, or reply in it.")),
    Tab.UNASSIGNED: (_("Nobody waits."), _("Conversations that need a person appear here.")),
    Tab.ALL: (_("No conversation is open."), _("The next message of a customer opens one.")),
    Tab.TEAMS: (_("Your teams have no conversation."), _("Conversations that are assigned to a team appear here.")),
    Tab.MENTIONS: (_("Nobody mentions you."), _("A colleague does by writing @ and your name in a note.")),
    Tab.SNOOZED: (_("Nothing is snoozed."), _("Snooze a conversation to have it come back later.")),
    Tab.ENDED: (_("No conversation has ended yet."), _("Closed and expired conversations appear here.")),
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """The reader of a list: a user, the clients whose conversations they may read, and their language and zone."""

    user_id: int
    client_ids: tuple[UUID, ...]
    language: str
    zone: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A page of a list, whoever reads it."""

    client_ids: tuple[UUID, ...]
    choice: Filters
    after: str


def viewer_of(request: HttpRequest) -> Viewer:
    """Return the reader of the request's answer."""
    language, zone = translation.get_language() or "en", str(timezone.get_current_timezone())
    return Viewer(int(request.user.pk or 0), tuple(sorted(client_ids_of(request))), language, zone)


def clients_of_choice(client_ids: Sequence[UUID], choice: Filters) -> list[UUID]:
    """Return those of the clients whose conversations are in the list."""
    return [pk for pk in client_ids if choice.client_id in (None, pk)]


def bodies(asked: Sequence[tuple[Viewer, str]]) -> list[bytes | None]:
    """Return the page that each viewer asks for by the query of an address: `html`, `next` (a cursor) and `counts` of
    the tabs, as JSON.

    Where one of several pages cannot be read, its viewers have None. Raises what the reading of a single page raises.
    """
    wanted = [(viewer, _Wanted(viewer.client_ids, *_read(query))) for viewer, query in asked]
    viewers: dict[_Wanted, list[Viewer]] = {}
    for viewer, page in wanted:
        viewers.setdefault(page, []).append(viewer)
    told = {}
    for page, its in viewers.items():
        try:
            told[page] = _told(page, its)
        except Exception:
            if len(viewers) == 1:
                raise
            log.exception("a list that others wait for beside could not be read")
    return [told[page][viewer] if page in told else None for viewer, page in wanted]


@lru_cache(maxsize=QUERIES)
def _read(query: str) -> tuple[Filters, str]:
    given = QueryDict(query)
    return filters.read(given), given.get("after", "")


def _told(wanted: _Wanted, viewers: Sequence[Viewer]) -> dict[Viewer, bytes]:
    """Return what each of the viewers of a page is told."""
    choice, users = wanted.choice, sorted({each.user_id for each in viewers})
    of_choice = clients_of_choice(wanted.client_ids, choice)
    pages = inbox.pages(of_choice, users, choice.tab, choice.order, wanted.after, choice.narrowing)
    counted = tab_counts.counted(wanted.client_ids, users)
    rendered = _Rendered(wanted, pages)
    return {
        each: b'{"html":%b,"next":%b,"counts":%b}'
        % (
            rendered.html(each),
            orjson.dumps(pages[each.user_id].next),
            orjson.dumps(tab_counts.of_user(counted, each.user_id, wanted.client_ids)),
        )
        for each in set(viewers)
    }


class _Rendered:
    """The HTML of the pages of several users. What reads the same is rendered once."""

    def __init__(self, wanted: _Wanted, pages: dict[int, InboxPage]) -> None:
        self._pages, self._done = pages, dict[Any, bytes]()
        choice = wanted.choice
        self._in_list = InboxList(choice.tab, choice.order, names_clients=len(wanted.client_ids) > 1)
        every: dict[UUID, InboxRow] = {row.id: row for page in pages.values() for row in page.rows}
        self._promised: dict[UUID, Promise] = inbox.next_promises(list(every.values()))
        self._holders = {row.holder_id for row in every.values()}

    def html(self, viewer: Viewer) -> bytes:
        """Return the viewer's page as HTML, as a string of JSON."""
        rows, user_id = self._pages[viewer.user_id].rows, viewer.user_id
        # The same object is the same page (`inbox.pages`); to compare all its rows would take longer.
        holder_id = user_id if user_id in self._holders else None  # whose own rows look otherwise
        key = (viewer.language, viewer.zone, id(rows), holder_id)
        if key not in self._done:
            with translation.override(viewer.language), timezone.override(ZoneInfo(viewer.zone)):
                shown = inbox_rows.shown(rows, user_id, self._in_list, promised=self._promised)
                context = {"rows": shown, "empty": EMPTY[self._in_list.tab]}
                self._done[key] = orjson.dumps(str(render_to_string("admin/inbox/_rows.html", context)))
        return self._done[key]
