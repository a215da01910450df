"""The lists of the inbox: a page of conversations, with what a row shows.

Open conversations are read from the index of open ones and sorted, since an index on the time of the last message would
end the heap-only updates of an append. Ended ones are read from the index by their end. A page goes on behind its last
row (keyset pagination), so that new messages neither repeat nor hide rows. How far users have seen the conversations
is a statement of its own, so that a page is read once for many users.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from django.utils import timezone

from conversations.services.core.cluster import is_cluster, of_one, rows_of_clients
from conversations.services.core.rotation import by_client
from conversations.services.core.sql import rows
from conversations.services.desk.narrowing import EVERYTHING, ME, Narrowing, narrowed_sql
from conversations.services.tenants import client_hours, promises
from conversations.services.tenants.promises import UNANSWERED_SINCE, WAITS_SINCE, Promise

PAGE_SIZE = 40  # rows
CHARACTERS = 200  # of the customer's last words


class Tab(StrEnum):
    """The tabs of the inbox."""

    MINE = "mine"
    UNASSIGNED = "unassigned"
    ALL = "all"
    TEAMS = "teams"
    MENTIONS = "mentions"
    SNOOZED = "snoozed"
    ENDED = "ended"


class Order(StrEnum):
    """The orders of open conversations."""

    NEWEST = "newest"
    WAITING = "waiting"
    LATE = "late"  # what is late first, then what is due soonest


@dataclass(frozen=True, slots=True)
class InboxRow:
    """One conversation in the list.

    name            of the contact, or their phone or user id
    last_at         the time of the last message
    waits_since     since when it waits for a person; None if it does not
    asked_at        when the person wrote first, if nobody has answered and somebody should; else None. It may be None
                    where the client promises no first response
    holder          who has it or is responsible for it; '' for the assistant or nobody
    words           the customer's last words, or the summary of an archived conversation
    words_position  their position in the conversation; 0 if there are none
    labels          name and colour of each
    team            the team that is responsible for it, or ''
    is_unread       the customer wrote after what the user has seen, and the user has seen it before, has it, or
                    somebody is waited for
    """

    id: UUID
    client_id: UUID
    client: str
    name: str
    channel: str
    status: str
    is_guest: bool
    last_at: datetime
    ended_at: datetime | None
    waits_since: datetime | None
    asked_at: datetime | None
    started_at: datetime
    is_taken_over: bool
    holder_id: int | None
    holder: str
    priority: int
    snoozed_until: datetime | None
    words: str
    words_position: int
    labels: list[tuple[str, str]] = field(hash=False)
    team: str
    is_unread: bool = False

    @property
    def initials(self) -> str:
        """Return up to two letters for the avatar; '' for a name without letters."""
        found = [word[0] for word in self.name.split() if word[0].isalpha()]
        return "".join([found[0], found[-1]] if len(found) > 1 else found).upper()

    @property
    def hue(self) -> int:
        """Return the number of the avatar's colour, 0 to 7: the same for the same conversation."""
        return self.id.int % 8


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Rows of the list, and the cursor of the next page; '' if there is none."""

    rows: list[InboxRow]
    next: str


WAITS = "(s.needs_staff_since IS NOT NULL OR s.reply_owed AND s.taken_over_at IS NOT NULL)"
_OPEN = "s.status IN ('active', 'stale')"
# Conversation s is out of sight. d: what staff set of it.
_SNOOZED = "(d.snoozed_until IS NOT NULL AND d.snoozed_until > now() AND s.inbound_sequence <= d.snoozed_sequence)"
IN_SIGHT = f"{_OPEN} AND NOT {_SNOOZED}"
IS_MINE = "(s.taken_over_by_id = $2 OR s.taken_over_name = '' AND d.assignee_id = $2)"
UNASSIGNED = f"{IN_SIGHT} AND {WAITS} AND s.taken_over_name = '' AND d.assignee_id IS NULL"
_WHERE = {
    Tab.MINE: f"{IN_SIGHT} AND {IS_MINE}",
    Tab.UNASSIGNED: UNASSIGNED,
    Tab.ALL: IN_SIGHT,
    Tab.TEAMS: f"""{IN_SIGHT} AND d.team_id IN (
        SELECT m.team_id FROM desk_team_members m
        JOIN memberships b ON b.client_id = m.client_id AND b.id = m.membership_id
        WHERE m.client_id = ANY ($1::uuid[]) AND b.user_id = $2)""",
    Tab.SNOOZED: f"{_OPEN} AND {_SNOOZED}",
    Tab.MENTIONS: """s.id IN (
        SELECT m.conversation_id FROM desk_mentions m WHERE m.client_id = ANY ($1::uuid[]) AND m.user_id = $2
          AND (m.read_at IS NULL OR m.read_at > now() - interval '1 day'))""",
}
_OWN = (Tab.MINE, Tab.TEAMS, Tab.MENTIONS)  # whose conversations depend on who looks
_NOBODY = 0  # no user's id
_STATE = "LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id"
_SELECTED = f"s.*, d.assignee_id, d.team_id, d.priority, CASE WHEN {_SNOOZED} THEN d.snoozed_until END AS snoozed"
_NARROWED = narrowed_sql("$5::bigint", "$6::bigint", "$7::text", "$8::int", "$9::text", "$10::int")
_HOLDER = "COALESCE(s.taken_over_by_id, CASE WHEN s.taken_over_name = '' THEN s.assignee_id END)"
_ROW = f"""
    s.id, s.client_id, (SELECT n.name FROM clients n WHERE n.id = s.client_id),
    COALESCE(NULLIF(k.staff_name, ''), NULLIF(k.name, ''), NULLIF(k.phone, ''), k.user_id), s.channel, s.status,
    s.is_guest, s.last_message_at, s.ended_at, {WAITS_SINCE},
    {UNANSWERED_SINCE}, s.started_at,
    s.taken_over_at IS NOT NULL, {_HOLDER},
    COALESCE(NULLIF(s.taken_over_name, ''), (SELECT u.username FROM auth_user u WHERE u.id = s.assignee_id), ''),
    COALESCE(s.priority, 0), s.snoozed,
    COALESCE(w.words, left(s.summary, {CHARACTERS}), ''), COALESCE(w.position, 0),
    ARRAY(SELECT ARRAY[b.name, b.colour] FROM desk_conversation_labels l
        JOIN desk_labels b ON b.client_id = l.client_id AND b.id = l.label_id
        WHERE l.client_id = s.client_id AND l.conversation_id = s.id ORDER BY b.name),
    COALESCE((SELECT q.name FROM desk_teams q WHERE q.client_id = s.client_id AND q.id = s.team_id), '')"""
# Beside conversation s: its contact, and the customer's last words as they read now. PostgreSQL plans the statement
# anew each time, and that takes longer with each join. So names are read by sub-selects.
_BESIDE = f"""
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    LEFT JOIN LATERAL (
        SELECT c.position, left(COALESCE((
            SELECT x.text FROM chunk_corrections x
            WHERE x.client_id = c.client_id AND x.chunk_id = c.id AND x.kind = 'correction'
            ORDER BY x.id DESC LIMIT 1), c.content), {CHARACTERS}) AS words
        FROM conversation_chunks c
        WHERE c.client_id = s.client_id AND c.conversation_id = s.id AND c.role IN ('user', 'voice')
        ORDER BY c.position DESC LIMIT 1) w ON true"""
# On one server a transcript is looked at for its first answer only where the client promises one. A cluster has the
# promises on the coordinator alone.
_ROW_HERE = _ROW.replace(UNANSWERED_SINCE, f"CASE WHEN h.first_response_within IS NOT NULL THEN {UNANSWERED_SINCE} END")
_BESIDE_HERE = f"LEFT JOIN client_hours h ON h.client_id = s.client_id {_BESIDE}"
# By order of open ones: what the statement begins with, what it joins, and the time by which it sorts.
_WITH = {order: f"WITH o AS MATERIALIZED ({promises.SCALES})" if order == Order.LATE else "" for order in Order}
_DUE = {
    order: f"""JOIN o ON o.client_id = s.client_id
    CROSS JOIN LATERAL ({promises.DUE_AT} OFFSET 0) due(at)"""
    if order == Order.LATE
    else ""
    for order in Order
}
_SOONEST = {Order.WAITING: WAITS_SINCE, Order.LATE: "due.at"}
_NEVER = "9999-12-31 UTC"  # psycopg reads no infinity
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"


def page(
    client_ids: Sequence[UUID],
    user_id: int,
    tab: Tab,
    order: Order = Order.NEWEST,
    cursor: str = "",
    narrowing: Narrowing = EVERYTHING,
) -> InboxPage:
    """Return a page of the clients' conversations.

    cursor: `next` of the page before, or ''. One that cannot be read begins from the start.
    narrowing: only those that it lets through
    """
    return pages(client_ids, [user_id], tab, order, cursor, narrowing)[user_id]


def pages(
    client_ids: Sequence[UUID],
    user_ids: Sequence[int],
    tab: Tab,
    order: Order = Order.NEWEST,
    cursor: str = "",
    narrowing: Narrowing = EVERYTHING,
) -> dict[int, InboxPage]:
    """Return the page as each of the users sees it, in two statements where all see the same conversations.

    A row that reads the same for several users is one object, and so is a page.
    """
    if tab in _OWN or narrowing.assignee_id == ME:
        read = [([each], _page(client_ids, each, tab, order, cursor, narrowing)) for each in user_ids]
    else:
        read = [(list(user_ids), _page(client_ids, _NOBODY, tab, order, cursor, narrowing))]
    seen = _seen(client_ids, user_ids, {row.id for _, found in read for row in found.rows})
    return {user_id: page for users, found in read for user_id, page in _seen_by(users, found, seen).items()}


def _seen_by(users: Sequence[int], found: InboxPage, seen: Mapping[tuple[UUID, int], int]) -> dict[int, InboxPage]:
    """Return the page as each of the users sees it."""
    of_others = frozenset(place for place, row in enumerate(found.rows) if _is_unread(row, _NOBODY, {}))
    unread = dict.fromkeys(users, of_others)
    for user_id, places in _own_places(found.rows, seen).items():
        if user_id in unread:
            own = {place for place in places if _is_unread(found.rows[place], user_id, seen)}
            unread[user_id] = (of_others - places) | own
    marked = [replace(row, is_unread=True) for row in found.rows]
    pages_with = {
        places: InboxPage([marked[at] if at in places else row for at, row in enumerate(found.rows)], found.next)
        for places in set(unread.values())
    }
    return {user_id: pages_with[places] for user_id, places in unread.items()}


def _own_places(found: Sequence[InboxRow], seen: Mapping[tuple[UUID, int], int]) -> dict[int, set[int]]:
    """Return by user the places of the rows that they have, or have opened: others see these in another way."""
    places = {row.id: place for place, row in enumerate(found)}
    own: dict[int, set[int]] = {}
    for conversation_id, user_id in seen:
        if conversation_id in places:
            own.setdefault(user_id, set()).add(places[conversation_id])
    for place, row in enumerate(found):
        if row.holder_id is not None:
            own.setdefault(row.holder_id, set()).add(place)
    return own


def _page(
    client_ids: Sequence[UUID], user_id: int, tab: Tab, order: Order, cursor: str, narrowing: Narrowing
) -> InboxPage:
    values: tuple[Any, ...] = (user_id, *_read(cursor), *narrowing.values(user_id))
    if order == Order.LATE and tab != Tab.ENDED:
        values += tuple(promises.sort_values(client_ids, timezone.now()))
    if is_cluster():
        found = _page_in_cluster(client_ids, tab, order, values)
    else:
        found = rows(_ended() if tab == Tab.ENDED else _open(tab, order), list(client_ids), *values)
    read = [InboxRow(*each[:-1]) for each in found[:PAGE_SIZE]]
    goes_on = len(found) > PAGE_SIZE
    return InboxPage(read, _written(found[PAGE_SIZE - 1][-1], read[-1].id) if goes_on else "")


def _seen(
    client_ids: Sequence[UUID], user_ids: Sequence[int], conversation_ids: Iterable[UUID]
) -> dict[tuple[UUID, int], int]:
    """Return by conversation and user how far the user has seen it; those left out have never opened it."""
    found = rows_of_clients(_SEEN, client_ids, list(conversation_ids), list(user_ids), at_once=True)
    return {(conversation_id, user_id): position for conversation_id, user_id, position in found}


def _is_unread(row: InboxRow, user_id: int, seen: Mapping[tuple[UUID, int], int]) -> bool:
    position = seen.get((row.id, user_id))
    is_followed = position is not None or row.waits_since is not None or row.holder_id == user_id
    return is_followed and row.words_position > (position or 0)


def _page_in_cluster(
    client_ids: Sequence[UUID], tab: Tab, order: Order, values: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """Return the rows of a page, each client's by a statement of its own after their ids were found together."""
    statement = _ids(tab, order)
    of_each = rows_of_clients(statement, client_ids, *values, at_once=tab == Tab.ENDED or order != Order.LATE)
    newest_first = tab == Tab.ENDED or order == Order.NEWEST
    found = sorted(of_each, key=lambda each: (each[2], each[1]), reverse=newest_first)[: PAGE_SIZE + 1]
    whose = by_client({pk: client_id for client_id, pk, _ in found})
    shown = [each for client_id, ids in whose.items() for each in rows(of_one(_SOME), [client_id], ids)]
    places = {pk: (place, key) for place, (_, pk, key) in enumerate(found)}
    ordered = sorted(shown, key=lambda each: places[each[0]][0])
    return [(*each, places[each[0]][1]) for each in ordered]


@cache
def _ids(tab: Tab, order: Order) -> str:
    """Return the statement of the clients, ids and keys of a page: its values are those of `_open`."""
    if tab == Tab.ENDED:
        order = Order.NEWEST
        key, sign, start, last, where = "s.ended_at", "<", "infinity", _LAST, "s.ended_at IS NOT NULL"
    elif order == Order.NEWEST:
        key, sign, start, last, where = "s.last_message_at", "<", "infinity", _LAST, _WHERE[tab]
    else:
        key, sign, start, last = f"COALESCE({_SOONEST[order]}, '{_NEVER}')", ">", "-infinity", _FIRST
        where = _WHERE[tab]
    direction = "DESC" if sign == "<" else "ASC"
    return f"""{_WITH[order]}
    SELECT s.client_id, s.id, {key} FROM conversations s {_STATE} {_DUE[order]}
    WHERE s.client_id = ANY ($1::uuid[]) AND {where} AND $2::int IS NOT NULL AND {_NARROWED}
      AND ({key}, s.id) {sign} (
          LEAST(COALESCE($3::timestamptz, '{start}'), '{_NEVER}'::timestamptz), COALESCE($4::uuid, '{last}'))
    ORDER BY {key} {direction}, s.id {direction} LIMIT {PAGE_SIZE + 1}"""


def condition(tab: Tab) -> str:
    """Return the SQL by which conversation s, its state d, is in the tab: $1 clients, $2 user. Not of ended ones."""
    return _WHERE[tab]


def next_promises(found: Sequence[InboxRow]) -> dict[UUID, Promise]:
    """Return the promise that is to be kept next in each of the conversations that have one; one statement."""
    terms = client_hours.terms_of([*{each.client_id for each in found if not each.ended_at}])
    of_each = {
        row.id: promises.made(
            terms[row.client_id], row.channel, row.started_at, waits_since=row.waits_since, asked_at=row.asked_at
        ).next
        for row in found
        if row.client_id in terms and not row.ended_at
    }
    return {pk: each for pk, each in of_each.items() if each}


def rows_of(client_ids: Sequence[UUID], user_id: int, conversation_ids: Sequence[UUID]) -> list[InboxRow]:
    """Return the rows of these of the clients' conversations, the newest message first."""
    found = [InboxRow(*each) for each in rows_of_clients(_SOME, client_ids, list(conversation_ids))]
    seen = _seen(client_ids, [user_id], [row.id for row in found])
    shown = [replace(row, is_unread=_is_unread(row, user_id, seen)) for row in found]
    return sorted(shown, key=lambda each: (each.last_at, each.id), reverse=True)


@cache
def _open(tab: Tab, order: Order) -> str:
    """The statement of a tab: $1 clients, $2 user, $3, $4 key and id of the last row before, $5 to $10 narrow."""
    if order == Order.NEWEST:
        key, sign, direction, start, last = "s.last_message_at", "<", "DESC", "infinity", _LAST
    else:
        key, sign, direction, start, last = f"COALESCE({_SOONEST[order]}, 'infinity')", ">", "ASC", "-infinity", _FIRST
    return f"""{_WITH[order]}
    SELECT {_ROW_HERE}, NULLIF(s.sort_key, 'infinity') FROM (
        SELECT {_SELECTED}, {key} AS sort_key FROM conversations s {_STATE} {_DUE[order]}
        WHERE s.client_id = ANY ($1::uuid[]) AND {_WHERE[tab]} AND $2::int IS NOT NULL AND {_NARROWED}
          AND ({key}, s.id) {sign} (COALESCE($3::timestamptz, '{start}'), COALESCE($4::uuid, '{last}'))
        ORDER BY {key} {direction}, s.id {direction} LIMIT {PAGE_SIZE + 1}) s {_BESIDE_HERE}
    ORDER BY s.sort_key {direction}, s.id {direction}"""


@cache
def _ended() -> str:
    """The statement of the ended ones: of each client as many as a page holds, by `ended_conversations_of_client`."""
    return f"""
    SELECT {_ROW_HERE}, s.ended_at FROM (
        SELECT e.* FROM unnest($1::uuid[]) AS of_client CROSS JOIN LATERAL (
            SELECT {_SELECTED} FROM conversations s {_STATE}
            WHERE s.client_id = of_client AND s.ended_at IS NOT NULL AND $2::int IS NOT NULL AND {_NARROWED}
              AND (s.ended_at, s.id) < (COALESCE($3::timestamptz, 'infinity'), COALESCE($4::uuid, '{_LAST}'))
            ORDER BY s.ended_at DESC, s.id DESC LIMIT {PAGE_SIZE + 1}) e
        ORDER BY e.ended_at DESC, e.id DESC LIMIT {PAGE_SIZE + 1}) s {_BESIDE_HERE}
    ORDER BY s.ended_at DESC, s.id DESC"""


_SEEN = """
    SELECT e.conversation_id, e.user_id, e.position FROM desk_seen e
    WHERE e.client_id = ANY ($1::uuid[]) AND e.conversation_id = ANY ($2::uuid[]) AND e.user_id = ANY ($3::int[])"""

_SOME = f"""
    SELECT {_ROW} FROM (
        SELECT {_SELECTED} FROM conversations s {_STATE}
        WHERE s.client_id = ANY ($1::uuid[]) AND s.id = ANY ($2::uuid[])) s {_BESIDE}
    ORDER BY s.last_message_at DESC, s.id DESC"""


# --- cursors ----------------------------------------------------------------------------------------------------------
def _written(key: datetime | None, conversation_id: UUID) -> str:
    """Return the cursor of the page behind this row. A row that waits for nobody has no key: it comes last."""
    told = [key.astimezone(UTC).isoformat() if key else "", str(conversation_id)]
    return base64.urlsafe_b64encode(orjson.dumps(told)).decode().rstrip("=")


def _read(cursor: str) -> tuple[str | None, UUID | None]:
    """Return the key, as PostgreSQL reads it, and the id of the last row before; (None, None) for the start."""
    try:
        told = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        key, conversation_id = told
        return (datetime.fromisoformat(key).isoformat() if key else "infinity"), UUID(conversation_id)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        return None, None
