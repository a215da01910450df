"""What each rule of retention deletes, in batches of one short transaction each, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import RetentionPolicy
from conversations.models import RetentionRule as R
from conversations.models.retention import FOR_EVER
from conversations.services.core.deadlines import KEPT, default_days, retention_due
from conversations.services.core.dedupe import TOMBSTONES_LAST, tombstones_sql
from conversations.services.core.ledger import events_sql
from conversations.services.core.sql import column, rows
from conversations.services.retention import mentions
from memory import services as memory

BATCH = 200  # sessions in one transaction, with all that hangs on them: nobody waits for it for long
SESSIONS_AT_ONCE = 200  # of which turns or sends are deleted: there are many to each
Progress = Callable[[str, int], None]


@dataclass(slots=True)
class RuleResult:
    """What one rule did to one client's rows: how many are gone, since when the oldest of them counted, how many a hold
    kept, and the code of what went wrong."""

    rule: str
    deleted: int = 0
    oldest: datetime | None = None
    held_back: int = 0
    error: str = ""

    def add(self, since: datetime, count: int = 1) -> None:
        """So many more are gone."""
        self.deleted += count
        self.oldest = min(self.oldest, since) if self.oldest else since


@dataclass(slots=True)
class RetentionRun:
    """What a run did, or would do: a line for each client (None: no client's) and rule with anything to say."""

    lines: dict[tuple[UUID | None, str], RuleResult] = field(default_factory=dict)
    skipped: bool = False

    def line(self, client_id: UUID | None, rule: str) -> RuleResult:
        """The line, made where there is none."""
        return self.lines.setdefault((client_id, rule), RuleResult(rule))

    def of(self, rule: str) -> list[RuleResult]:
        """The lines of the rule."""
        return [line for (_, name), line in self.lines.items() if name == rule]

    def deleted(self, rule: str) -> int:
        """How many of all clients."""
        return sum(line.deleted for line in self.of(rule))

    def held_back(self, rule: str) -> int:
        """How many of all clients."""
        return sum(line.held_back for line in self.of(rule))

    def errors(self) -> list[str]:
        """What went wrong, once each."""
        return sorted({f"{line.rule}: {line.error}" for line in self.lines.values() if line.error})


def is_on(rule: str) -> bool:
    """Whether anything is ever deleted by the rule; looking for it costs a walk along the table."""
    decided = RetentionPolicy.objects.filter(rule=rule, days__lt=FOR_EVER)
    return default_days(rule) < FOR_EVER or decided.exists()


# The tombstones are written, and which chats are to be deleted at Retell, and the sessions go; or nothing of it. Chunks
# and the rest cascade. The contact's row is held meanwhile, so that no hold comes between.
_DELETE_SESSIONS = """
    WITH due AS (
        SELECT s.id, s.client_id, s.contact_id, {since} AS since {due} {further}
        LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR SHARE OF p SKIP LOCKED),
    tombstones AS ({tombstones}),
    elsewhere AS (
        INSERT INTO engine_chat_removals (chat_id, due_at, attempts, error)
        SELECT k.chat_id, $1, 0, '' FROM engine_chats k JOIN due ON due.id = k.conversation_id
        ON CONFLICT DO NOTHING)
    DELETE FROM conversations s USING due WHERE s.id = due.id
    RETURNING due.id, due.client_id, due.contact_id, due.since"""


def _delete_sessions(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept = KEPT[rule]
    walk = rule == R.SESSIONS  # there is no index that holds only what is due: along the primary key
    statement = _DELETE_SESSIONS.format(
        since=kept.since,
        tombstones=tombstones_sql("due"),
        due=f"{retention_due(rule)} AND {kept.free}",
        further="AND s.id > $4 ORDER BY s.id" if walk else "",
    )
    last: list[UUID] = [UUID(int=0)] if walk else []
    total = 0
    while gone := _delete_batch(statement, now, *last):
        for _, client_id, _, since in gone:
            done.line(client_id, rule).add(since)
        _delete_guests(list({contact_id for _, _, contact_id, _ in gone}))
        last = [max(session for session, *_ in gone)] if walk else []
        total += len(gone)
        progress(rule.value, total)


def _delete_batch(statement: str, now: datetime, *last: UUID) -> list[tuple[Any, ...]]:
    with transaction.atomic():
        gone = rows(statement, now, BATCH, TOMBSTONES_LAST, *last)
        memory.forget_texts([session for session, *_ in gone])
    return gone


def _delete_guests(contact_ids: list[UUID]) -> None:
    """Guests of those who have no session left are gone.

    Their rows are locked first: whoever is opening a session for one of them holds a lock of its own (we skip that
    contact), or waits for ours and then starts anew. The second statement sees every session committed before.
    """
    with transaction.atomic():
        locked = column(
            "SELECT id FROM contacts WHERE id = ANY($1) AND is_guest AND hold_reason = ''"
            " ORDER BY id FOR UPDATE SKIP LOCKED",
            contact_ids,
        )
        rows(
            """
            DELETE FROM contacts c
            WHERE c.id = ANY($1) AND NOT EXISTS (SELECT FROM conversations s WHERE s.contact_id = c.id)
            RETURNING c.id
            """,
            list(locked),
        )


_BY_RETENTION = {"cause": "'kept long enough'", "actor": "'system'", "actor_name": "'retention'"}

# What hangs on ended sessions, which stay: their ledger says what went. A table below is named by the rule.
_DELETE_BELOW = """
    WITH due AS (
        SELECT s.id, s.client_id, {since} AS since {due} AND s.id > $3
        ORDER BY s.id LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED FOR SHARE OF p SKIP LOCKED),
    gone AS (
        DELETE FROM {table} t USING due WHERE t.conversation_id = due.id AND {settled} RETURNING t.conversation_id),
    counted AS (SELECT conversation_id AS id, count(*) AS number FROM gone GROUP BY conversation_id),
    noted AS ({lines})
    SELECT due.id, due.client_id, due.since, COALESCE(counted.number, 0)
    FROM due LEFT JOIN counted ON counted.id = due.id"""
_BELOW = {
    R.TURNS: ("conversation_turns", "t.status <> 'running'"),
    R.RECEIPTS: ("conversation_messages", "t.status NOT IN ('queued', 'claimed', 'sending')"),
}


def _delete_below(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept, (table, settled) = KEPT[rule], _BELOW[rule]
    statement = _DELETE_BELOW.format(
        since=kept.since,
        due=f"{retention_due(rule)} AND {kept.free}",
        table=table,
        settled=settled,
        lines=events_sql(
            f"{rule.value}_deleted",
            "counted",
            **_BY_RETENTION,
            data=f"jsonb_build_object('rule', '{kept.setting}', 'deleted', number)",
        ),
    )
    last, total = UUID(int=0), 0
    while gone := rows(statement, now, SESSIONS_AT_ONCE, last):
        for _, client_id, since, count in gone:
            if count:
                done.line(client_id, rule).add(since, count)
            total += count
        last = max(session for session, *_ in gone)
        progress(rule.value, total)


# A session that is not archived yet never is: nobody would have its transcript.
_DELETE_MEMORY = """
    WITH due AS (
        SELECT m.conversation_id AS id, m.client_id, {since} AS since {due} AND m.conversation_id > $3
        ORDER BY m.conversation_id LIMIT $2 FOR UPDATE OF m SKIP LOCKED),
    gone AS (DELETE FROM memories m USING due WHERE m.conversation_id = due.id RETURNING m.conversation_id),
    known AS (SELECT s.id FROM conversations s JOIN gone ON gone.conversation_id = s.id),
    noted AS ({lines}),
    never AS (
        UPDATE conversations s SET remembered_at = NULL FROM gone
        WHERE s.id = gone.conversation_id AND s.archived_at IS NULL)
    SELECT id, client_id, since FROM due"""


def _delete_memory(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept = KEPT[rule]
    statement = _DELETE_MEMORY.format(
        since=kept.since,
        due=f"{retention_due(rule)} AND {kept.free}",
        lines=events_sql(
            "memory_deleted", "known", **_BY_RETENTION, data=f"jsonb_build_object('rule', '{kept.setting}')"
        ),
    )
    last, total = UUID(int=0), 0
    while gone := rows(statement, now, SESSIONS_AT_ONCE, last):
        for _, client_id, since in gone:
            done.line(client_id, rule).add(since)
        last = max(session for session, *_ in gone)
        total += len(gone)
        progress(rule.value, total)


_DELETE_EVENTS = """
    DELETE FROM inbound_events WHERE id IN (
        SELECT e.id {due} ORDER BY e.received_at LIMIT $4 FOR UPDATE OF e SKIP LOCKED)
    RETURNING client_id, received_at"""


def _delete_events(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    statement = _DELETE_EVENTS.format(due=f"{retention_due(rule)} AND {KEPT[rule].free}")
    held, total = mentions.of_held_people(), 0
    while gone := rows(statement, now, *held, BATCH):
        for client_id, since in gone:
            done.line(client_id, rule).add(since)
        total += len(gone)
        progress(rule.value, total)


DELETE: dict[R, Callable[[R, datetime, RetentionRun, Progress], None]] = {
    R.GUESTS: _delete_sessions,
    R.WEB: _delete_sessions,
    R.SESSIONS: _delete_sessions,
    R.MEMORY: _delete_memory,
    R.TURNS: _delete_below,
    R.RECEIPTS: _delete_below,
    R.EVENTS: _delete_events,
}
