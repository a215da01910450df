"""The rows of a million sessions, made in the database itself.

One row of `bench.sessions` says what a session is; all that is below it follows from that and from its number, so
that nothing has to be looked up. A quarter of the ended sessions is not archived yet and has its chunks; of the others
memory alone has the words. The words are made up: 20,000 of them, as common as the words of a language are (Zipf), so
that a search meets all kinds; and every session has an order number of its own.

    1 … 99 %        ended within the last four months, the newest last; 5 % of them are guests whom somebody closed
    99 … 100 %      open, with messages of the last day; a fifth began three days before
    beyond them     expired guests, due to be purged; and a few people who said very much (`PEOPLE`)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from uuid import UUID

import psycopg

WORDS, SENTENCES = 20_000, 20_000
SMALL_WORDS = ["the", "my", "is", "and", "to", "of", "you", "it", "please", "on", "for", "with", "that", "have"]
OTHERS = 9  # clients beside the one whose key we have, whose are 40 % of all sessions
DAYS = 120  # that the ended sessions are spread over
ARCHIVED_AFTER = 30  # days
LANES = 2  # connections that write at once
RANGES = 24  # that a table is written in, for its progress
Say = Callable[[str], None]


@dataclass(frozen=True)
class Person:
    """Somebody who said much: so many sessions, the last one open, with so many chunks in all."""

    user_id: str
    sessions: int
    chunks: int


PEOPLE = (Person("hundred", 2, 100), Person("ten-thousand", 20, 10_000), Person("twenty-thousand", 20, 20_000))


@dataclass(frozen=True)
class Plan:
    """How many there are to be, and of which clients (the first has 40 %). `at` is the present of all of them."""

    sessions: int
    guests: int
    clients: Sequence[UUID]
    at: datetime

    @property
    def open_from(self) -> int:
        """The number of the first open session."""
        return self.sessions - self.sessions // 100 + 1

    @property
    def known(self) -> int:
        """How many people are known by phone; beyond them are the guests, and then PEOPLE."""
        return self.sessions // 2

    @property
    def all(self) -> int:
        """Sessions of all but PEOPLE."""
        return self.sessions + self.guests


# --- words ------------------------------------------------------------------------------------------------------------
def vocabulary() -> list[str]:
    """Words that no language has, the most common first."""
    dice = random.Random(1)
    syllables = [consonant + vowel for consonant in "bcdfgklmnprstvz" for vowel in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(dice.choices(syllables, k=dice.choice((2, 3, 3, 4)))) + dice.choice(("x", "n", "r", "l"))] = None
    return list(found)


def sentences(words: Sequence[str]) -> list[str]:
    """Nine words or so each, and small words between them."""
    dice = random.Random(2)
    weights = [1 / (rank + 20) for rank in range(1, len(words) + 1)]
    found = []
    for _ in range(SENTENCES):
        chosen = dice.choices(words, weights, k=dice.randint(6, 12))
        small = dice.choices(SMALL_WORDS, k=len(chosen))
        found.append(" ".join(word for pair in zip(small, chosen, strict=True) for word in pair))
    return found


# --- SQL: what a session is -------------------------------------------------------------------------------------------
def drawn(what: str, most: int) -> str:
    """A number from 0 to `most` - 1 that looks drawn, and is always the same."""
    return f"(abs(hashint8(({what})::bigint)::bigint) % {most})"


def sessions(plan: Plan) -> str:
    """One row a session; `upto` counts the chunks as far as its last."""
    n, at = plan.sessions, _at(plan)
    client = f"(ARRAY[{', '.join(f'{str(pk)!r}' for pk in plan.clients)}]::uuid[])"
    return f"""
    CREATE UNLOGGED TABLE bench.sessions AS
    WITH numbered AS (
        SELECT i, i > {n} AS is_due, i >= {plan.open_from} AND i <= {n} AS is_open
        FROM generate_series(1, {plan.all}) AS i
    ), sorted AS (
        SELECT *, is_due OR (is_open AND i % 2 = 0) OR (NOT is_open AND {drawn("i * 31", 20)} = 0) AS is_guest
        FROM numbered
    ), whose AS (
        SELECT *, CASE WHEN is_guest THEN {plan.known} + i WHEN is_open THEN 1 + i % {plan.known}
                       ELSE 1 + {drawn("i * 7 + 3", plan.known)} END AS person,
               {at} - CASE WHEN is_due THEN interval '25 hours'
                           WHEN is_open THEN interval '23 hours' * ({n} - i + 1) / ({n} * 0.01 + 1)
                           ELSE interval '26 hours' + interval '{DAYS} days' * ({plan.open_from} - i) / {plan.open_from}
                      END AS started_at
        FROM sorted
    ), timed AS (
        SELECT *, CASE WHEN is_open THEN NULL
                       WHEN NOT is_due AND (is_guest OR i % 4 = 0) THEN started_at + interval '40 minutes'
                       ELSE started_at + interval '24 hours' END AS ended_at
        FROM whose
    ), ended AS (
        SELECT *, CASE WHEN is_open AND i % 5 = 0 THEN 'active' WHEN is_open THEN 'stale' WHEN is_due THEN 'expired'
                       WHEN NOT is_guest AND ended_at < {at} - interval '{ARCHIVED_AFTER} days' THEN 'archived'
                       WHEN is_guest OR i % 4 = 0 THEN 'closed' ELSE 'expired' END AS status,
               CASE WHEN is_open AND i % 5 = 0 THEN {at} - interval '1 second' * (i % 500)
                    WHEN is_open THEN LEAST(started_at + interval '5 minutes', {at} - interval '11 minutes')
                    ELSE started_at + interval '3 minutes' END AS last_message_at,
               2 + i % 9 AS said
        FROM timed
        {"".join(f" UNION ALL {_of(plan, number)}" for number in range(len(PEOPLE)))}
    ), counted AS (
        SELECT *, CASE WHEN status = 'archived' THEN 0 ELSE said + 2 END AS chunks FROM ended
    )
    SELECT i, md5('s' || i)::uuid AS id, person, md5('p' || person)::uuid AS contact_id,
           {client}[CASE WHEN person % 10 < 4 THEN 1 ELSE 2 + person % {OTHERS} END] AS client_id,
           CASE WHEN person % 20 < 14 THEN 'whatsapp' WHEN person % 20 < 17 THEN 'sms'
                WHEN person % 20 < 19 THEN 'messenger' ELSE 'orb' END AS channel,
           is_guest, is_open,
           started_at - CASE WHEN is_open AND i % 5 = 1 THEN interval '3 days' ELSE '0' END AS started_at,
           last_message_at, ended_at, status, said, chunks,
           sum(chunks) OVER (ORDER BY i) AS upto
    FROM counted"""


def _of(plan: Plan, number: int) -> str:
    """The sessions of one of PEOPLE, the last of them open, none archived. The person is of the first client."""
    who, before = PEOPLE[number], plan.all + sum(each.sessions for each in PEOPLE[:number])
    began = f"{_at(plan)} - interval '12 hours' * ({who.sessions} - k) - interval '2 hours'"
    last = f"k = {who.sessions}"
    return f"""
        SELECT {before} + k, false, {last}, false, {person_of(plan, number)}, {began},
               CASE WHEN {last} THEN NULL ELSE {began} + interval '1 hour' END,
               CASE WHEN {last} THEN 'stale' ELSE 'closed' END, {began} + interval '30 minutes',
               {who.chunks // who.sessions - 2}
        FROM generate_series(1, {who.sessions}) AS k"""


def person_of(plan: Plan, number: int) -> int:
    """The number of one of PEOPLE among all people; such that the first client is theirs."""
    return (plan.known + plan.all) // 10 * 10 + 10 * (number + 1)


def _at(plan: Plan) -> str:
    return f"'{plan.at.isoformat()}'::timestamptz"


# --- SQL: what is below it --------------------------------------------------------------------------------------------
def text(position: str) -> str:
    """What is said there."""
    return f"(SELECT text FROM bench.sentences WHERE n = {drawn(f's.i::bigint * 64 + {position}', SENTENCES)})"


def period(days: int) -> str:
    """In which period of so many days the session ended, as its document says it."""
    return f"c.scope || ':{days}d' || floor(extract(epoch FROM s.ended_at) / {days * 86_400})"


SAID = f"{text('k.position')} || CASE WHEN k.position = 3 THEN ', order ' || (900000000 + s.i) ELSE '' END"
ROLE = "CASE k.position % 2 WHEN 1 THEN 'user' ELSE 'ai' END"
CHUNK = "(s.upto - s.chunks + k.position)"
AT = "s.started_at + interval '10 seconds' * k.position"
BY_PERSON = "s.person >= $1 AND s.person < $2 ORDER BY s.person, s.i"
RANGE = "s.i >= $1 AND s.i < $2"
ACCOUNT = "a.client_id = s.client_id AND a.channel = s.channel AND a.provider = 'sandbox'"


def statements(plan: Plan) -> dict[str, str]:
    """By table, what writes the sessions, or people, from $1 to before $2."""
    user_id = "".join(f"WHEN {person_of(plan, k)} THEN '{who.user_id}' " for k, who in enumerate(PEOPLE))
    return {
        "contacts": f"""
            INSERT INTO contacts (id, client_id, user_id, phone, is_guest, created_at)
            SELECT DISTINCT ON (s.person) s.contact_id, s.client_id,
                   CASE s.person {user_id} ELSE 'person-' || s.person END,
                   CASE WHEN NOT s.is_guest THEN '+51' || (900000000 + s.person) END, s.is_guest, s.started_at
            FROM bench.sessions s WHERE {BY_PERSON}""",
        "contact_identities": f"""
            INSERT INTO contact_identities (id, contact_id, client_id, channel, kind, address, created_at)
            SELECT DISTINCT ON (s.person) s.person, s.contact_id, s.client_id, s.channel,
                   CASE WHEN s.is_guest THEN 'psid' ELSE 'phone' END,
                   CASE WHEN s.is_guest THEN 'psid-' || s.person ELSE '51' || (900000000 + s.person) END, s.started_at
            FROM bench.sessions s WHERE {BY_PERSON}""",
        "conversations": f"""
            INSERT INTO conversations
                (id, client_id, contact_id, device_id, channel_account_id, channel, status, is_guest, summary,
                 started_at, last_message_at, ended_at, ended_by, remembered_at, archived_at, last_position,
                 inbound_sequence)
            SELECT s.id, s.client_id, s.contact_id, s.person, a.id, s.channel, s.status, s.is_guest,
                   CASE WHEN s.is_open OR s.is_guest THEN '' ELSE {text("1")} END,
                   s.started_at, s.last_message_at, s.ended_at,
                   CASE s.status WHEN 'closed' THEN 'staff' ELSE CASE WHEN s.is_open THEN '' ELSE 'timeout' END END,
                   CASE WHEN NOT s.is_guest THEN s.ended_at + interval '1 minute' END,
                   CASE WHEN s.status = 'archived' THEN s.ended_at + interval '{ARCHIVED_AFTER} days' END,
                   s.said + 2, (s.said + 1) / 2
            FROM bench.sessions s JOIN channel_accounts a ON {ACCOUNT} WHERE {RANGE}""",
        "conversation_chunks": f"""
            INSERT INTO conversation_chunks
                (client_id, id, conversation_id, position, role, content, message_id, dedupe_key, created_at)
            SELECT s.client_id, {CHUNK}, s.id, k.position,
                   CASE k.position WHEN 1 THEN 'system' WHEN 2 THEN 'memory' ELSE {ROLE} END,
                   CASE k.position WHEN 1 THEN 'You are a helpful assistant.'
                       WHEN 2 THEN 'Nothing is known of this contact from earlier sessions.' ELSE {SAID} END,
                   CASE WHEN k.position > 2 AND k.position % 2 = 1 THEN 'wamid.' || {CHUNK} ELSE '' END,
                   CASE WHEN k.position > 2 AND k.position % 2 = 1 THEN md5('m' || {CHUNK})::uuid END, {AT}
            FROM bench.sessions s, LATERAL generate_series(1, s.chunks) AS k(position) WHERE {RANGE}""",
        "conversation_messages": f"""
            INSERT INTO conversation_messages
                (client_id, id, conversation_id, chunk_id, part, parts, channel_account_id, to_address, to_kind, text,
                 status, attempts, due_at, provider_message_id, created_at, sending_at, sent_at, delivered_at, read_at)
            SELECT s.client_id, md5('o' || {CHUNK})::uuid, s.id, {CHUNK}, 1, 1, a.id, '51' || (900000000 + s.person),
                   'phone', {SAID}, 'read', 1, {AT}, 'out.' || {CHUNK}, {AT}, {AT}, {AT}, {AT}, {AT}
            FROM bench.sessions s JOIN channel_accounts a ON {ACCOUNT},
                LATERAL generate_series(4, s.chunks, 2) AS k(position) WHERE {RANGE}""",
        "conversation_turns": f"""
            INSERT INTO conversation_turns
                (client_id, id, conversation_id, chunk_id, status, attempt, inbound_sequence, lease_until, started_at,
                 ended_at, engine, model, prompt, draft, finish_reason, tokens_in, tokens_out, code, reason)
            SELECT s.client_id, md5('t' || {CHUNK})::uuid, s.id, {CHUNK}, 'committed', 1, k.position / 2 - 1, {AT},
                   {AT}, {AT}, 'openai', 'gpt-4o-mini', jsonb_build_object('messages', jsonb_build_array(
                       jsonb_build_object('role', 'system', 'content', 'You are a helpful assistant.'),
                       jsonb_build_object('role', 'user', 'content', {text("k.position - 1")}))),
                   '', 'stop', 400, 30, '', ''
            FROM bench.sessions s, LATERAL generate_series(4, s.chunks, 2) AS k(position) WHERE {RANGE}""",
        "conversation_events": f"""
            INSERT INTO conversation_events
                (client_id, conversation_id, kind, from_status, to_status, cause, actor, created_at)
            SELECT s.client_id, s.id, e.kind, e.before, e.after, e.cause, 'system', e.at
            FROM bench.sessions s, LATERAL (VALUES
                ('opened', '', 'active', '', s.started_at),
                ('stale', 'active', 'stale', 'no message within stale_after',
                 CASE WHEN s.status <> 'active' THEN s.last_message_at + interval '10 minutes' END),
                ('expired', 'stale', 'expired', 'no message within expire_after', s.ended_at),
                ('remembered', '', '', 'llm', CASE WHEN NOT s.is_guest THEN s.ended_at END),
                ('archived', 'expired', 'archived', 'archive_after is over',
                 CASE WHEN s.status = 'archived' THEN s.ended_at + interval '{ARCHIVED_AFTER} days' END)
            ) AS e (kind, before, after, cause, at) WHERE e.at IS NOT NULL AND {RANGE}""",
        "conversation_steps": f"""
            INSERT INTO conversation_steps (client_id, conversation_id, description, status)
            SELECT s.client_id, s.id, 'Ask for the order number', CASE WHEN s.is_open THEN 'pending' ELSE 'complete' END
            FROM bench.sessions s WHERE s.i % 3 = 0 AND {RANGE}""",
        "memories": f"""
            INSERT INTO memories (conversation_id, client_id, contact_id, channel, language, summary, summary_kind,
                                  transcript, document, started_at, ended_at, remembered_at)
            SELECT s.id, s.client_id, s.contact_id, s.channel, 'english', m.summary, 'llm', t.entries,
                   array_to_tsvector(ARRAY[c.scope, {", ".join(map(period, (1, 4, 16, 64)))}])
                       || setweight(to_tsvector('english', m.summary), 'A')
                       || setweight(to_tsvector('english', replace(t.theirs, ',', '')), 'B')
                       || setweight(to_tsvector('english', COALESCE(replace(t.ours, ',', ''), '')), 'C'),
                   s.started_at, s.ended_at, s.ended_at
            FROM bench.sessions s,
            LATERAL (SELECT {text("1")} AS summary) m,
            LATERAL (SELECT '@' || replace(s.client_id::text, '-', '') || ':english' AS scope) c,
            LATERAL (
                SELECT jsonb_agg(jsonb_build_object('position', position, 'role', role, 'content', content, 'at', at,
                                                    'by_staff', false) ORDER BY position) AS entries,
                       string_agg(content, ' ' ORDER BY position) FILTER (WHERE role = 'user') AS theirs,
                       string_agg(content, ' ' ORDER BY position) FILTER (WHERE role = 'ai') AS ours
                FROM (SELECT k.position, {ROLE} AS role, {SAID} AS content, {AT} AS at
                      FROM generate_series(3, s.said + 2) AS k(position)) spoken) t
            WHERE NOT s.is_open AND NOT s.is_guest AND {RANGE}""",
        "inbound_events": f"""
            INSERT INTO inbound_events (client_id, channel, provider, kind, reason, message_id, raw, received_at)
            SELECT s.client_id, s.channel, 'whatsapp', 'reaction', 'not_a_turn', 'wamid.r' || s.i,
                   jsonb_build_object('from', '51' || (900000000 + s.person), 'type', 'reaction', 'reaction',
                       jsonb_build_object('message_id', 'wamid.' || s.i, 'emoji', '+1')),
                   {_at(plan)} - interval '1 minute' * (s.i % 40000)
            FROM bench.sessions s WHERE s.i % 50 = 0 AND {RANGE}""",
    }


# --- writing ----------------------------------------------------------------------------------------------------------
def write(plan: Plan, say: Say) -> None:
    """All of it is there, analysed. `psycopg.connect("")` must reach the database as the owner of its tables."""
    with connection() as database:
        database.execute("CREATE SCHEMA bench")
        database.execute("CREATE UNLOGGED TABLE bench.sentences (n int PRIMARY KEY, text text)")
        with database.cursor().copy("COPY bench.sentences FROM STDIN") as copy:
            for number, sentence in enumerate(sentences(vocabulary())):
                copy.write_row((number, sentence))
        with timed(say, "sessions, as numbers"):
            database.execute(sessions(plan))
            database.execute("CREATE UNIQUE INDEX ON bench.sessions (i)")
            database.execute("CREATE INDEX ON bench.sessions (person)")
            database.execute("ANALYZE bench.sessions, bench.sentences")
        tables = statements(plan)
        with bare(database, tables, say):
            for table, statement in tables.items():
                people = table in ("contacts", "contact_identities")
                last = database.execute(f"SELECT max({'person' if people else 'i'}) FROM bench.sessions").fetchone()
                _in_ranges(table, statement, int(last[0]) if last else 0, say)
        for table in ("contact_identities", "conversation_chunks"):
            database.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")
        with timed(say, "vacuum and analyse"):
            database.execute(f"VACUUM (ANALYZE) {', '.join(tables)}")


@contextmanager
def connection() -> Iterator[psycopg.Connection]:
    """One that writes much: nobody needs it again after a crash."""
    with psycopg.connect("", autocommit=True, cursor_factory=psycopg.RawCursor) as database:
        for setting in (
            "synchronous_commit = off",
            "maintenance_work_mem = '512MB'",
            "work_mem = '128MB'",
            "jit = off",
        ):
            database.execute(f"SET {setting}")
        yield database


@contextmanager
def bare(database: psycopg.Connection, tables: Sequence[str], say: Say) -> Iterator[None]:
    """Inside the block the tables are without foreign keys and indexes, but for those of a constraint."""
    names = list(tables)
    keys = database.execute(
        """SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'f' AND conrelid::regclass::text = ANY ($1)""",
        [names],
    ).fetchall()
    indexes = database.execute(
        """SELECT tablename, quote_ident(indexname), indexdef FROM pg_indexes i WHERE tablename = ANY ($1)
            AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = format('%I', indexname)::regclass)""",
        [names],
    ).fetchall()
    for table, name, _ in keys:
        database.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for _, name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    yield
    with timed(say, f"{len(indexes)} indexes"), ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(_execute, (definition for *_, definition in indexes)))
    with timed(say, f"{len(keys)} foreign keys"):
        for table, name, definition in keys:
            database.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")


def _execute(statement: str, values: Sequence[int] = ()) -> int:
    with connection() as database:
        return database.execute(statement, values).rowcount


def _in_ranges(table: str, statement: str, last: int, say: Say) -> None:
    ends = [1 + (last + 1) * k // RANGES for k in range(RANGES)] + [last + 1]
    begun, written = time.monotonic(), 0
    with ThreadPoolExecutor(LANES) as lanes:
        for done, count in enumerate(lanes.map(lambda span: _execute(statement, span), pairwise(ends)), 1):
            written += count
            say(f"\r  {table}: {done / RANGES:.0%}, {written:,} rows, {time.monotonic() - begun:.0f} s ")
    say("\n")


@contextmanager
def timed(say: Say, what: str) -> Iterator[None]:
    """Says how long the block took."""
    begun = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - begun:.0f} s\n")
