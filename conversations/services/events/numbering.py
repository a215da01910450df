"""Positions of events: given after the commit of what they tell, so that no reader skips one.

    chunks, ledger, notes ──(new ids)──► events ──(each endpoint that wants it)──► event_deliveries

Ids come from sequences, and a transaction with a lower id may commit later. So a source's ids are remembered as the
set that was numbered, and a gap in it stays open: whatever appears there gets the next position. A gap is closed once
every transaction that held the table's lock when the gap was seen has ended. It takes that lock before it takes an id,
and lets go of it after it is visible. (`CREATE INDEX CONCURRENTLY` waits in the same way.)

One pass runs at a time, whoever begins it: dispatchers several times a second, and who asks for the feed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from uuid import UUID

import orjson
from django.db import OperationalError, transaction

from conversations.services.core import counters
from conversations.services.core.cluster import all_clients, can_ask_others, is_cluster, of_each
from conversations.services.core.sql import column, rows
from conversations.services.events.kinds import OF_LEDGER

BATCH = 2_000  # rows of each source that one pass numbers
TABLES = {"chunk": "conversation_chunks", "ledger": "conversation_events", "note": "event_notes"}

NONE_NUMBERED = "{[0,1)}"

_KINDS = orjson.dumps(dict(OF_LEDGER)).decode().replace("'", "''")
_PRIVATE = "s.channel = 'web' AND s.thread <> ''"


def _new(source: str, columns: str, after: int) -> str:
    """Return the rows of a source that have no position yet. after: the number of the first of its two values."""
    return f"""
        SELECT n.* FROM clients k CROSS JOIN LATERAL (
            SELECT {columns} FROM {TABLES[source]} n
            WHERE n.client_id = k.id AND n.id > ${after} AND NOT ${after + 1}::int8multirange @> n.id
            ORDER BY n.id LIMIT {BATCH}) n
        ORDER BY n.id LIMIT {BATCH}"""


def _numbered(source: str, after: int) -> str:
    return f"""
        (SELECT (${after + 1}::int8multirange + COALESCE(range_agg(int8range(id, id, '[]')), '{{}}'))::text
         FROM new_{source}s), (SELECT count(*) FROM new_{source}s)"""


# A conversation's chunks keep their order, and so do its lines: the time of each is at least that of the one before.
# Where a line and a chunk have the same time, the line comes first: it opened the conversation.
_ORDERED = f"""
    WITH new_chunks AS MATERIALIZED ({_new("chunk", "n.client_id, n.id, n.conversation_id, n.role, n.created_at", 1)}),
    new_ledgers AS MATERIALIZED ({_new("ledger", "n.client_id, n.id, n.conversation_id, n.kind, n.created_at", 3)}),
    new_notes AS MATERIALIZED ({_new("note", "n.client_id, n.id, n.conversation_id, n.kind, n.created_at", 5)}),
    found AS (
        SELECT s.client_id, CASE WHEN n.role = 'ai' THEN 'message.out' ELSE 'message.in' END AS kind,
               s.id AS conversation_id, 'chunk' AS source, n.id AS source_id, n.created_at, {_PRIVATE} AS private
        FROM new_chunks n JOIN conversations s ON s.client_id = n.client_id AND s.id = n.conversation_id
        WHERE n.role IN ('user', 'voice', 'ai')
        UNION ALL
        SELECT s.client_id, '{_KINDS}'::jsonb ->> n.kind, s.id, 'ledger', n.id, n.created_at, {_PRIVATE}
        FROM new_ledgers n JOIN conversations s ON s.client_id = n.client_id AND s.id = n.conversation_id
        WHERE '{_KINDS}'::jsonb ? n.kind
        UNION ALL
        SELECT n.client_id, n.kind, n.conversation_id, 'note', n.id, n.created_at, COALESCE({_PRIVATE}, false)
        FROM new_notes n LEFT JOIN conversations s ON s.client_id = n.client_id AND s.id = n.conversation_id
    ), timed AS (
        SELECT found.*, max(created_at) OVER (PARTITION BY conversation_id, source ORDER BY source_id) AS at FROM found
    ), ordered AS (
        SELECT timed.*, row_number() OVER (PARTITION BY client_id ORDER BY at, source = 'chunk', source_id) AS place
        FROM timed)"""
_NUMBERED = ", ".join((_numbered("chunk", 1), _numbered("ledger", 3), _numbered("note", 5)))
_KINDS_FOUND = """(SELECT jsonb_object_agg(kind, number)::text
            FROM (SELECT kind, count(*) AS number FROM found GROUP BY kind) k)"""
_PASS = f"""{_ORDERED},
    counted AS (
        INSERT INTO event_positions (client_id, last)
        SELECT client_id, count(*) FROM found GROUP BY client_id ORDER BY client_id
        ON CONFLICT (client_id) DO UPDATE SET last = event_positions.last + EXCLUDED.last
        RETURNING client_id, last
    ), written AS (
        INSERT INTO events (client_id, position, kind, conversation_id, source, source_id, private, occurred_at)
        SELECT o.client_id, c.last - count(*) OVER (PARTITION BY o.client_id) + o.place, o.kind, o.conversation_id,
               o.source, o.source_id, o.private, o.created_at
        FROM ordered o JOIN counted c ON c.client_id = o.client_id
        RETURNING client_id, position, kind, conversation_id, private
    ), delivered AS (
        INSERT INTO event_deliveries (client_id, endpoint_id, position, kind, conversation_id)
        SELECT w.client_id, e.id, w.position, w.kind, w.conversation_id
        FROM written w JOIN event_endpoints e ON e.client_id = w.client_id
        WHERE (e.kinds = '[]' OR e.kinds ? w.kind) AND (e.private OR NOT w.private)
    )
    SELECT {_NUMBERED},
           {_KINDS_FOUND}"""

_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('convo.number_events'))"
_WAIT = "SELECT pg_advisory_xact_lock(hashtext('convo.number_events')) IS NOT NULL"
# The state of each source, and the last id that anybody was given.
_STATES = " UNION ALL ".join(
    f"""
    SELECT '{source}', n.numbered, n.doubt_upto, n.doubt_holders::text,
        COALESCE(pg_sequence_last_value('{table}_id_seq'), 0)
    FROM (SELECT) AS always LEFT JOIN event_numbering n ON n.source = '{source}'"""
    for source, table in TABLES.items()
)
_KEEP = """
    INSERT INTO event_numbering (source, numbered, doubt_upto, doubt_holders) VALUES ($1, $2, $3, $4::jsonb)
    ON CONFLICT (source) DO UPDATE
    SET numbered = EXCLUDED.numbered, doubt_upto = EXCLUDED.doubt_upto, doubt_holders = EXCLUDED.doubt_holders
    RETURNING source"""
_WITHOUT_GAPS = "SELECT ($1::int8multirange + int8multirange(int8range(0, $2, '[]')))::text"
# Every transaction that writes to the table, or may be about to: this one only reads it.
_HOLDERS = """
    SELECT DISTINCT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = $1::text::regclass AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode NOT IN ('AccessShareLock', 'RowShareLock')"""


@dataclass(slots=True)
class _Source:
    """A source's state.

    numbered       the ids that are numbered, as an int8multirange
    doubt_upto     the last id that was numbered when a gap was seen; None for no gap
    doubt_holders  who held the table's lock then
    given          the last id that anybody was given
    was_settled    the holders had gone when this pass began
    """

    name: str
    numbered: str
    doubt_upto: int | None
    doubt_holders: Sequence[str]
    given: int
    was_settled: bool = False

    @property
    def values(self) -> tuple[int, str]:
        """Return the last id below the first gap, and all that are numbered."""
        return _ranges(self.numbered)[0][1] - 1, self.numbered

    @property
    def may_have_new(self) -> bool:
        """Return whether an id was given that is not numbered: its row may be there, or come, or never come."""
        (_, end), *more = _ranges(self.numbered)
        return bool(more) or end <= self.given

    def settle(self) -> None:
        """Note whether all who held the table's lock when a gap was seen have gone."""
        self.was_settled = self.doubt_upto is not None and not _held_by(self.name).intersection(self.doubt_holders)

    def store(self) -> None:
        """Write the state to its row."""
        rows(_KEEP, self.name, self.numbered, self.doubt_upto, orjson.dumps(list(self.doubt_holders)).decode())


def _ranges(numbered: str) -> list[tuple[int, int]]:
    """Return the ranges of an int8multirange, which PostgreSQL writes with their ends excluded."""
    return [(int(first), int(end)) for first, end in re.findall(r"\[(\d+),(\d+)\)", numbered)]


def number_events(*, wait: bool = False) -> int:
    """Give positions to what was committed since the last pass, and queue its deliveries.

    Returns how many rows it looked at, which are events or not.

    wait: wait for a pass that is under way, which may not have seen the newest; otherwise return 0
    """
    if is_cluster():
        return _number_in_cluster(wait=wait)
    if not any(each.may_have_new for each in _states()):  # asked all the time, so it reads no client's rows
        return 0
    with transaction.atomic():
        if not rows(_WAIT if wait else _LOCK)[0][0]:
            return 0
        sources = _sources()
        found = rows(_PASS, *(value for each in sources for value in each.values))[0]
        for each, at in zip(sources, (0, 2, 4), strict=True):
            _keep(each, found[at], is_whole=found[at + 1] < BATCH)
    for kind, count in orjson.loads(found[6] or "{}").items():
        counters.EVENTS.labels(kind).inc(count)
    return sum(int(found[at + 1]) for at in (0, 2, 4))


def number_all() -> int:
    """Give a position to everything that was committed before, and return how many rows that were."""
    total = 0
    while count := number_events(wait=True):
        total += count
    return total


def _states() -> list[_Source]:
    """Return the states of the sources, in the order of TABLES."""
    found = {
        name: _Source(name, numbered or NONE_NUMBERED, upto, orjson.loads(holders or "[]"), given)
        for name, numbered, upto, holders, given in rows(_STATES)
    }
    return [found[name] for name in TABLES]


def _sources() -> list[_Source]:
    """Return the states of the sources at the beginning of a pass."""
    found = _states()
    for each in found:
        each.settle()
    return found


def _keep(source: _Source, numbered: str, *, is_whole: bool) -> None:
    """Store the ids that are numbered, and note or close gaps. is_whole: all that was visible was numbered."""
    before = source.numbered, source.doubt_upto
    source.numbered = numbered
    if source.was_settled and is_whole:
        [(source.numbered,)] = rows(_WITHOUT_GAPS, numbered, source.doubt_upto)
        source.doubt_upto, source.doubt_holders = None, []
    ranges = _ranges(source.numbered)
    if len(ranges) > 1 and source.doubt_upto is None and is_whole:
        source.doubt_upto, source.doubt_holders = ranges[-1][1] - 1, sorted(_held_by(source.name))
    if (source.numbered, source.doubt_upto) != before:
        source.store()


def _held_by(source: str) -> set[str]:
    return {holder for (holder,) in rows(_HOLDERS, TABLES[source])}


# --- in a cluster: client by client -----------------------------------------------------------------------------------
# Each table has an index by id alone there (tenants/servers.py).
_CLIENTS_WITH_NEW = " UNION ".join(
    f"SELECT n.client_id FROM {table} n WHERE n.id > ${at} AND NOT ${at + 1}::int8multirange @> n.id"
    for table, at in zip(TABLES.values(), (1, 3, 5), strict=True)
)
# What becomes of _ORDERED for client $7 alone, who is named wherever a client is.
_ALONE = (
    (r"SELECT n\.\* FROM clients k CROSS JOIN LATERAL \(\s+SELECT", "SELECT"),
    (r"n\.client_id = k\.id", "n.client_id = $7"),
    (r"\) n\s+ORDER BY n\.id LIMIT \d+\)", ")"),
    (r"\bs\.client_id = n\.client_id", "s.client_id = $7"),
)
_ROW = "place bigint, kind text, conversation_id uuid, source text, source_id bigint, private boolean, at timestamptz"
_FOUND = f"""
    SELECT {_NUMBERED},
           {_KINDS_FOUND},
           (SELECT jsonb_agg(jsonb_build_object('place', place, 'kind', kind, 'conversation_id', conversation_id,
                'source', source, 'source_id', source_id, 'private', private, 'at', created_at))::text FROM ordered)"""
# The rest of _PASS, by statements of their own: an INSERT of what a CTE found needs every server. $1 is the client, $2
# how many events it has.
_COUNT = """
    INSERT INTO event_positions (client_id, last) VALUES ($1, $2)
    ON CONFLICT (client_id) DO UPDATE SET last = event_positions.last + EXCLUDED.last
    RETURNING last - $2"""
# $1 the client, $2 the last position before, $3 the rows.
_WRITE = f"""
    INSERT INTO events (client_id, position, kind, conversation_id, source, source_id, private, occurred_at)
    SELECT $1::uuid, $2::bigint + r.place, r.kind, r.conversation_id, r.source, r.source_id, r.private, r.at
    FROM jsonb_to_recordset($3::jsonb) AS r({_ROW})
    RETURNING position"""
_ENDPOINTS = """
    SELECT jsonb_agg(jsonb_build_object('id', e.id, 'kinds', e.kinds, 'private', e.private))::text
    FROM event_endpoints e WHERE e.client_id = $1"""
# $4 the endpoints: an INSERT of what is read of a table that every server has needs every server, too.
_DELIVER = f"""
    INSERT INTO event_deliveries (client_id, endpoint_id, position, kind, conversation_id)
    SELECT $1::uuid, e.id, $2::bigint + r.place, r.kind, r.conversation_id
    FROM jsonb_to_recordset($3::jsonb) AS r({_ROW})
    CROSS JOIN jsonb_to_recordset($4::jsonb) AS e(id uuid, kinds jsonb, private boolean)
    WHERE (e.kinds = '[]' OR e.kinds ? r.kind) AND (e.private OR NOT r.private)
    RETURNING position"""


@cache
def _found_of_client() -> str:
    statement = _ORDERED
    for pattern, replacement in _ALONE:
        statement = re.sub(pattern, replacement, statement)
    return statement + _FOUND


def _number_in_cluster(*, wait: bool) -> int:
    """Number the rows of each client in a transaction of its own, but for those whose server is away.

    A gap is closed only where every server answered, since what is missing may be there.
    """
    with transaction.atomic():
        if not rows(_WAIT if wait else _LOCK)[0][0]:
            return 0
        before = _sources()
    values = [value for each in before for value in each.values]
    try:
        clients, is_whole = [pk for (pk,) in rows(_CLIENTS_WITH_NEW, *values)], True
    except OperationalError:
        if not can_ask_others():
            raise
        clients, is_whole = list(all_clients()), False
    counts = list(of_each([(pk,) for pk in clients], _number_client))
    if is_whole and len(counts) == len(clients) and all(count < BATCH for each in counts for count in each):
        with transaction.atomic():
            rows(_WAIT)
            for then, now in zip(before, _sources(), strict=True):
                _settle_gaps(then, now)
    return sum(count for each in counts for count in each)


def _number_client(client_id: UUID) -> tuple[int, ...]:
    """Number the client's rows, and return how many of each source were looked at."""
    with transaction.atomic():
        rows(_WAIT)
        sources = _sources()
        found = rows(_found_of_client(), *(value for each in sources for value in each.values), client_id)[0]
        if kinds := orjson.loads(found[6] or "{}"):
            [(last,)] = rows(_COUNT, client_id, sum(kinds.values()))
            rows(_WRITE, client_id, last, found[7])
            if endpoints := column(_ENDPOINTS, client_id)[0]:
                rows(_DELIVER, client_id, last, found[7], endpoints)
        for each, at in zip(sources, (0, 2, 4), strict=True):
            if each.numbered != found[at]:
                each.numbered = found[at]
                each.store()
    for kind, count in kinds.items():
        counters.EVENTS.labels(kind).inc(count)
    return tuple(int(found[at + 1]) for at in (0, 2, 4))


def _settle_gaps(before: _Source, now: _Source) -> None:
    """Note or close the gaps of a source. before: its state when the pass began."""
    doubts = [(each.doubt_upto, each.doubt_holders) for each in (before, now)]
    now.was_settled = before.was_settled and doubts[0] == doubts[1]
    _keep(now, now.numbered, is_whole=True)
