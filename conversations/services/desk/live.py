"""Live news for the desk: tells the browsers of this process which conversations changed, who is where, and counts.

    rows ─► one thread asks, a few times a second while anybody watches ─► watchers, by client ─► streams (event loop)

Nothing is written for it in an append, and no process tells another: each asks the rows. What is new is read from the
right end of the primary keys of chunks and of the ledger, a few seconds deep, since a row with a lower id may be
committed later. A watcher holds no thread and no connection. What a slow reader has not taken is joined, not queued.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from conversations.services.core.cluster import is_cluster, rows_of_clients
from conversations.services.core.sql import row
from conversations.services.desk import inbox, presence, tab_counts
from conversations.services.desk.tab_counts import Counted

log = logging.getLogger(__name__)

POLL_SECONDS = 0.7
IDLE_SECONDS = 2.0  # without watchers, after which the thread and its connection end
AWAY_SECONDS = 1.0
DEPTH_SECONDS = 4.0  # within which a transaction that has taken ids is committed
TOLD_APART_SECONDS = 0.003  # between two watchers, so that not all of them ask for their lists at the same moment
TOLD_WITHIN_SECONDS = 0.2  # all of them
COUNT_SECONDS = 5.0  # after which counts are asked for although nothing changed: snoozes end by themselves
MOST_IDS = 200  # of changed conversations in one event; with more, the reader reads everything again
DELIVERIES = 30  # newest chunks of an open conversation whose deliveries are watched


@dataclass(frozen=True, slots=True)
class News:
    """The news that a browser is told at once.

    changed     ids of conversations; None: too many to name
    alerts      (id, name) of conversations that the user has, or nobody, in which the customer wrote
    counts      by tab; None where they did not change
    present     by conversation that the user has open, who else has: (name, whether they are typing); None: as before
    """

    changed: Sequence[UUID] | None
    alerts: Sequence[tuple[UUID, str]]
    counts: dict[str, int] | None
    present: dict[UUID, list[tuple[str, bool]]] | None


@dataclass(eq=False)
class Watcher:
    """A browser of a user's that is told news of these clients."""

    user_id: int
    client_ids: frozenset[UUID]
    _changed: dict[UUID, None] = field(default_factory=dict)
    _alerts: dict[UUID, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _present: dict[UUID, list[tuple[str, bool]]] = field(default_factory=dict)
    _has_news: bool = False
    _is_told: tuple[bool, bool] = (True, True)  # of the counts, and of who is present
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _wake: Callable[[], object] = lambda: None

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, in the feed's thread, whenever there is news."""
        self._wake = wake

    def take(self) -> News | None:
        """Return all news since the last time, or None."""
        with self._guard:
            if not self._has_news:
                return None
            knows_counts, knows_present = self._is_told
            changed = list(self._changed)
            news = News(
                changed=None if len(changed) > MOST_IDS else changed,
                alerts=list(self._alerts.items())[:10],
                counts=None if knows_counts else self._counts,
                present=None if knows_present else self._present,
            )
            self._changed, self._alerts = {}, {}
            self._has_news, self._is_told = False, (True, True)
            return news

    def tell(
        self,
        changed: Iterable[UUID],
        alerts: dict[UUID, str],
        counts: dict[str, int] | None,
        present: dict[UUID, list[tuple[str, bool]]],
    ) -> bool:
        """Add news, wake the reader if there is any, and return whether there is. counts: None where they were not
        asked for."""
        with self._guard:
            self._changed |= dict.fromkeys(changed)
            self._alerts |= alerts
            knows_counts, knows_present = self._is_told
            if counts is not None and counts != self._counts:
                self._counts, knows_counts = counts, False
            if present != self._present:
                self._present, knows_present = present, False
            self._is_told = knows_counts, knows_present
            self._has_news = bool(self._changed or self._alerts or not knows_counts or not knows_present)
            has_news = self._has_news
        if has_news:
            self._wake()
        return has_news


@dataclass(frozen=True, slots=True)
class Change:
    """A conversation in which something happened. wrote: the customer did."""

    client_id: UUID
    conversation_id: UUID
    wrote: bool
    holder_id: int | None
    is_waiting: bool
    name: str


class Recent:
    """The right end of a table: what was seen there, and from which id on to look."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._seen: dict[UUID, int] = {}

    @property
    def floor(self) -> int:
        """Return the id above which rows are read."""
        return self._ends[0][1] if self._ends else 0

    def begin(self, newest: int) -> None:
        """Begin at the newest id."""
        self._ends.append((monotonic(), newest))

    def note(self, newest: int) -> None:
        """Note the newest id, and forget what is too old to be followed by a lower one."""
        now = monotonic()
        self._ends.append((now, max(newest, self._ends[-1][1])))
        while len(self._ends) > 1 and self._ends[1][0] < now - DEPTH_SECONDS:
            self._ends.popleft()
        self._seen = {key: place for key, place in self._seen.items() if place > self.floor}

    def seen(self, conversation_id: UUID, newest: int) -> int:
        """Return the newest id that was seen of the conversation before, and note this one.

        Its row is locked while it is written to, so that within a conversation ids are committed in their order.
        """
        before = self._seen.get(conversation_id, self.floor)
        self._seen[conversation_id] = max(before, newest)
        return before


# The newest ids that were given to rows, of whatever client; 1 before the first. The function waits for whoever is just
# taking an id. To select from a sequence does not, and can see up to 32 ids more than were given.
_ENDS = """
    SELECT COALESCE(pg_sequence_last_value('conversation_chunks_id_seq'), 1),
        COALESCE(pg_sequence_last_value('conversation_events_id_seq'), 1)"""

# What is new in table {table} above the id $2, by conversation of the clients $1.
_NEW = f"""
    SELECT s.client_id, s.id, x.newest, x.written, COALESCE(s.taken_over_by_id,
        CASE WHEN s.taken_over_name = '' THEN d.assignee_id END), {inbox.WAITS},
        COALESCE(NULLIF(k.staff_name, ''), NULLIF(k.name, ''), NULLIF(k.phone, ''), k.user_id)
    FROM clients c CROSS JOIN LATERAL (
        SELECT n.client_id, n.conversation_id, max(n.id) AS newest, {{written}} AS written
        FROM {{table}} n WHERE n.client_id = c.id AND n.id > $2 GROUP BY n.client_id, n.conversation_id) x
    JOIN conversations s ON s.client_id = x.client_id AND s.id = x.conversation_id
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
    WHERE c.id = ANY ($1::uuid[])"""
_NEW_CHUNKS = _NEW.format(table="conversation_chunks", written="max(n.id) FILTER (WHERE n.role IN ('user', 'voice'))")
_NEW_EVENTS = _NEW.format(table="conversation_events", written="NULL::bigint")


def _at_once(statement: str) -> str:
    """Return the statement as a cluster takes it, whose tables have an index by id alone (tenants/servers.py)."""
    return (
        statement.replace("clients c CROSS JOIN LATERAL (", "(")
        .replace("n.client_id = c.id", "n.client_id = ANY ($1::uuid[])")
        .replace("WHERE c.id = ANY", "WHERE s.client_id = ANY")
    )


_PRESENT = f"""
    SELECT p.client_id, p.conversation_id, p.user_id, u.username, COALESCE(p.typing_until > now(), false)
    FROM desk_presences p JOIN auth_user u ON u.id = p.user_id
    WHERE p.client_id = ANY ($1::uuid[]) AND p.seen_at > now() - interval '{presence.HERE_SECONDS} seconds'
    ORDER BY u.username"""

# The deliveries of the newest chunks of the open conversations $2 of clients $1, as one number for each conversation.
_DELIVERIES = f"""
    SELECT s.client_id, s.id, (
        SELECT COALESCE(sum(hashtext(m.id::text || m.status)::bigint), 0)::bigint
        FROM (SELECT c.client_id, c.id FROM conversation_chunks c
              WHERE c.client_id = s.client_id AND c.conversation_id = s.id
              ORDER BY c.position DESC LIMIT {DELIVERIES}) c
        JOIN conversation_messages m ON m.client_id = s.client_id AND m.chunk_id = c.id)
    FROM conversations s WHERE s.client_id = ANY ($1::uuid[]) AND s.id = ANY ($2::uuid[])"""


class LiveFeed:
    """The watchers of this process, and the thread that asks the database for them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._watchers: set[Watcher] = set()
        self._thread: threading.Thread | None = None
        self._forget()

    def _forget(self) -> None:
        self._chunks, self._events = Recent(), Recent()
        self._deliveries: dict[UUID, int] = {}
        self._counted_at = 0.0
        self._began = False

    def watch(self, user_id: int, client_ids: Iterable[UUID]) -> Watcher:
        """Return a watcher of the clients, until `leave`. The caller has checked that the user may see them."""
        watcher = Watcher(user_id, frozenset(client_ids))
        with self._guard:
            self._watchers.add(watcher)
            self._counted_at = 0.0  # it is told the counts at once
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="desk-live", daemon=True)
                self._thread.start()
        self._wake.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Remove the watcher."""
        with self._guard:
            self._watchers.discard(watcher)

    def _run(self) -> None:
        self._forget()
        while self._has_watchers():
            try:
                connection.close_if_unusable_or_obsolete()
                self._wake.clear()
                self._tell_news()
                pause = POLL_SECONDS
            except (OperationalError, InterfaceError):
                connection.close()
                pause = AWAY_SECONDS
            except Exception:
                log.exception("the live feed failed; it tries again")
                connection.close()
                pause = AWAY_SECONDS
            self._wake.wait(pause)
        connection.close()

    def _has_watchers(self) -> bool:
        """Wait for watchers and return whether there are any. If not, the thread ends; the next watcher starts one."""
        until = monotonic() + IDLE_SECONDS
        while monotonic() < until:
            with self._guard:
                if self._watchers:
                    return True
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        with self._guard:
            if self._watchers:
                return True
            self._thread = None
            return False

    def _tell_news(self) -> None:
        with self._guard:
            watchers = list(self._watchers)
        if not watchers:
            return
        client_ids = list(frozenset[UUID]().union(*(watcher.client_ids for watcher in watchers)))
        user_ids = sorted({watcher.user_id for watcher in watchers})
        changes = self._changes(client_ids)
        present = rows_of_clients(_PRESENT, client_ids, at_once=True)
        delivered = self._changed_deliveries(client_ids, {conversation_id for _, conversation_id, *_ in present})
        counted = None
        if changes or monotonic() - self._counted_at > COUNT_SECONDS:
            self._counted_at = monotonic()
            counted = tab_counts.counted(client_ids, user_ids)
        apart = min(TOLD_APART_SECONDS, TOLD_WITHIN_SECONDS / len(watchers))
        for watcher in watchers:
            if _tell(watcher, changes, delivered, counted, present):
                sleep(apart)

    def _changes(self, client_ids: list[UUID]) -> list[Change]:
        ends = row(_ENDS) or (0, 0)
        if not self._began:
            self._chunks.begin(ends[0])
            self._events.begin(ends[1])
            self._began = True
        found = []
        for recent, statement, newest in ((self._chunks, _NEW_CHUNKS, ends[0]), (self._events, _NEW_EVENTS, ends[1])):
            asked = _at_once(statement) if is_cluster() else statement
            new = rows_of_clients(asked, client_ids, recent.floor, at_once=True)
            for client_id, conversation_id, end, written, *state in new:
                before = recent.seen(conversation_id, end)
                if end > before:
                    found.append(Change(client_id, conversation_id, (written or 0) > before, *state))
            recent.note(newest)
        return found

    def _changed_deliveries(self, client_ids: list[UUID], open_ids: set[UUID]) -> list[tuple[UUID, UUID]]:
        """Return client and id of the open conversations in which a delivery changed."""
        if not open_ids:
            self._deliveries = {}
            return []
        before, now, changed = self._deliveries, {}, []
        for client_id, conversation_id, state in rows_of_clients(_DELIVERIES, client_ids, list(open_ids)):
            now[conversation_id] = state
            if before.get(conversation_id, state) != state:
                changed.append((client_id, conversation_id))
        self._deliveries = now
        return changed


def _tell(
    watcher: Watcher,
    changes: Sequence[Change],
    delivered: Sequence[tuple[UUID, UUID]],
    counted: Counted | None,
    present: Sequence[tuple[Any, ...]],
) -> bool:
    """Tell the watcher what concerns them, and return whether there is anything."""
    theirs = [change for change in changes if change.client_id in watcher.client_ids]
    changed = [change.conversation_id for change in theirs]
    changed += [conversation_id for client_id, conversation_id in delivered if client_id in watcher.client_ids]
    alerts = {
        change.conversation_id: change.name
        for change in theirs
        if change.wrote and (change.holder_id == watcher.user_id or (change.is_waiting and change.holder_id is None))
    }
    counts = None if counted is None else tab_counts.of_user(counted, watcher.user_id, watcher.client_ids)
    return watcher.tell(changed, alerts, counts, _beside(watcher, present))


def _beside(watcher: Watcher, present: Sequence[tuple[Any, ...]]) -> dict[UUID, list[tuple[str, bool]]]:
    """Return who else is in the conversations that the watcher's user has open."""
    open_ids = {
        conversation_id
        for client_id, conversation_id, user_id, *_ in present
        if user_id == watcher.user_id and client_id in watcher.client_ids
    }
    found: dict[UUID, list[tuple[str, bool]]] = {}
    for _, conversation_id, user_id, name, is_typing in present:
        if conversation_id in open_ids and user_id != watcher.user_id:
            found.setdefault(conversation_id, []).append((name, is_typing))
    return found


live = LiveFeed()
