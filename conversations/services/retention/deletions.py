"""The deletions of each retention rule, in batches of one short transaction each, and their results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import RetentionPolicy
from conversations.models import RetentionRule as R
from conversations.models.retention import FOR_EVER
from conversations.services.core.cluster import all_clients, is_cluster, of_each
from conversations.services.core.deadlines import KEPT, default_days, retention_due
from conversations.services.core.dedupe import TOMBSTONES_LAST, tombstones_sql, write_tombstones_of_late
from conversations.services.core.ledger import events_sql, write_line
from conversations.services.core.sql import column, rows
from conversations.services.engine_chats import removals
from conversations.services.figures.deleted import note_deleted
from conversations.services.retention import mentions
from memory import services as memory

BATCH = 200  # conversations deleted in one transaction, with all below them: short enough that nobody waits for long
BATCH_BELOW = 200  # conversations whose turns or sends are deleted in one transaction: each has many
AWAY = "database_away"  # the error of a client whose server of a cluster does not answer
Progress = Callable[[str, int], None]


@dataclass(slots=True)
class RuleResult:
    """The result of one rule for one client.

    `oldest` is when the age of the oldest deleted row began, `held_back` how many rows a legal hold kept, `error` the
    code of an error.
    """

    rule: str
    deleted: int = 0
    oldest: datetime | None = None
    held_back: int = 0
    error: str = ""

    def add(self, since: datetime, count: int = 1) -> None:
        """Add `count` deleted rows whose age began at `since`."""
        self.deleted += count
        self.oldest = min(self.oldest, since) if self.oldest else since


@dataclass(slots=True)
class RetentionRun:
    """The results of a run or of its preview: a line for each client (None: rows of no client) and rule with any."""

    lines: dict[tuple[UUID | None, str], RuleResult] = field(default_factory=dict)
    skipped: bool = False

    def line(self, client_id: UUID | None, rule: str) -> RuleResult:
        """Return the line of the client and rule; it is made if there is none."""
        return self.lines.setdefault((client_id, rule), RuleResult(rule))

    def of(self, rule: str) -> list[RuleResult]:
        """Return the lines of the rule."""
        return [line for (_, name), line in self.lines.items() if name == rule]

    def deleted(self, rule: str) -> int:
        """Return how many rows of all clients the rule deleted."""
        return sum(line.deleted for line in self.of(rule))

    def held_back(self, rule: str) -> int:
        """Return how many rows of all clients a hold kept from the rule."""
        return sum(line.held_back for line in self.of(rule))

    def errors(self) -> list[str]:
        """Return the errors as "rule: code", each once."""
        return sorted({f"{R(line.rule).shown}: {line.error}" for line in self.lines.values() if line.error})


def is_on(rule: str) -> bool:
    """Return whether the rule ever deletes anything. If not, its walk along the table is saved."""
    decided = RetentionPolicy.objects.filter(rule=rule, days__lt=FOR_EVER)
    return default_days(rule) < FOR_EVER or decided.exists()


# One statement writes the tombstones, queues the deletion of chats at Retell and deletes the conversations. Chunks and
# the rest cascade. The contact's row is locked meanwhile, so that no legal hold comes between.
_DELETE_SESSIONS = """
    WITH due AS (
        SELECT s.id, s.client_id, s.contact_id, {since} AS since {due} AND s.client_id = $4 {further}
        LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR SHARE OF p SKIP LOCKED),
    tombstones AS ({tombstones}),
    elsewhere AS (
        INSERT INTO engine_chat_removals (client_id, chat_id, due_at, attempts, error)
        SELECT $4, k.chat_id, $1, 0, '' FROM engine_chats k JOIN due ON due.id = k.conversation_id
        WHERE k.client_id = $4
        ON CONFLICT DO NOTHING)
    DELETE FROM conversations s USING due WHERE s.client_id = $4 AND s.id = due.id
    RETURNING due.id, due.client_id, due.contact_id, due.since"""


# The guests' conversations that a batch deletes, whose figures are noted before (services/figures/deleted.py).
_LOCK_SESSIONS = """
    SELECT s.id, s.ended_at {due} AND s.client_id = $3
    LIMIT $2 FOR UPDATE OF s SKIP LOCKED FOR SHARE OF p SKIP LOCKED"""


def _delete_sessions(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept = KEPT[rule]
    walk = rule == R.SESSIONS  # no index holds only what is due, so it walks along the primary key
    statement = _DELETE_SESSIONS.format(
        since=kept.since,
        tombstones=tombstones_sql("due"),
        due=f"{retention_due(rule)} AND {kept.free}",
        further="AND s.id > $5 ORDER BY s.id" if walk else "AND s.id = ANY($5::uuid[])" if rule == R.GUESTS else "",
    )
    locking = _LOCK_SESSIONS.format(due=f"{retention_due(rule)} AND {kept.free}")

    def of_client(client_id: UUID) -> None:
        last: list[UUID] = [UUID(int=0)] if walk else []
        while gone := (
            _delete_guests_batch(locking, statement, client_id, now)
            if rule == R.GUESTS
            else _delete_batch(statement, client_id, now, *last)
        ):
            for *_, since in gone:
                done.line(client_id, rule).add(since)
            _delete_guests(client_id, list({contact_id for _, _, contact_id, _ in gone}))
            last = [max(conversation_id for conversation_id, *_ in gone)] if walk else []
            progress(rule.shown, done.deleted(rule))

    _of_each_client(rule, done, of_client)


def _of_each_client(rule: R, done: RetentionRun, delete: Callable[[UUID], None]) -> None:
    """Delete each client's rows. In a cluster, a client whose server is away has that as its result."""
    for client_id in all_clients():
        if not list(of_each([(client_id,)], delete)):
            done.line(client_id, rule).error = AWAY


def _delete_guests_batch(locking: str, statement: str, client_id: UUID, now: datetime) -> list[tuple[Any, ...]]:
    """Delete a batch of guests' conversations, with their figures noted, and return a row for each."""
    with transaction.atomic():
        ended = [(conversation_id, at) for conversation_id, at in rows(locking, now, BATCH, client_id)]
        if not ended:
            return []
        note_deleted(client_id, ended, now)
        return _delete_batch(statement, client_id, now, [conversation_id for conversation_id, _ in ended])


def _delete_batch(statement: str, client_id: UUID, now: datetime, *last: Any) -> list[tuple[Any, ...]]:
    delete = _delete_in_cluster if is_cluster() else rows
    with transaction.atomic():
        gone = delete(statement, now, BATCH, TOMBSTONES_LAST, client_id, *last)
        memory.forget_texts(client_id, [conversation_id for conversation_id, *_ in gone])
    return gone


def _delete_in_cluster(
    statement: str, now: datetime, most: int, kept: timedelta, client_id: UUID, *last: Any
) -> list[tuple[Any, ...]]:
    """Do what _DELETE_SESSIONS does, in parts: in a cluster an INSERT of what a CTE found needs every server."""
    lock = statement.partition(",\n    tombstones AS")[0] + " SELECT id, client_id, contact_id, since FROM due"
    due = rows(lock, now, most, kept, client_id, *last)
    if ids := [conversation_id for conversation_id, *_ in due]:
        write_tombstones_of_late(client_id, ids, now)
        removals.request_removal_once(client_id, removals.chat_ids_of(client_id, ids), now)
        rows("DELETE FROM conversations WHERE client_id = $1 AND id = ANY ($2::uuid[]) RETURNING id", client_id, ids)
    return due


def _delete_guests(client_id: UUID, contact_ids: list[UUID]) -> None:
    """Delete those of the client's contacts that are guests without a conversation.

    Their rows are locked first. A transaction that opens a conversation for one of them holds a lock itself (we skip
    that contact), or waits for ours and then starts anew. The second statement sees every conversation committed
    before.
    """
    with transaction.atomic():
        locked = column(
            "SELECT id FROM contacts WHERE client_id = $2 AND id = ANY($1) AND is_guest AND hold_reason = ''"
            " ORDER BY id FOR UPDATE SKIP LOCKED",
            *(contact_ids, client_id),
        )
        rows(
            """
            DELETE FROM contacts c
            WHERE c.client_id = $2 AND c.id = ANY($1) AND NOT EXISTS (
                SELECT FROM conversations s WHERE s.client_id = c.client_id AND s.contact_id = c.id)
            RETURNING c.id
            """,
            *(list(locked), client_id),
        )


_BY_RETENTION = {"cause": "'kept long enough'", "actor": "'system'", "actor_name": "'retention'"}


def _noted(what: str, source: str, data: str) -> str:
    """Return the further part of a statement that writes ledger lines; none in a cluster."""
    return "" if is_cluster() else f",\n    noted AS ({events_sql(what, source, **_BY_RETENTION, data=data)})"


def _delete_with_lines(
    statement: str, now: datetime, last: UUID, client_id: UUID, facts: Callable[[int], dict[str, Any]], what: str
) -> list[tuple[Any, ...]]:
    """Delete a batch, and return for each conversation its id, its client, since when it is due, and how many rows.

    In a cluster, where an INSERT of what a CTE found needs every server, the lines are written by statements of their
    own. facts: returns what a line says, for a number of rows
    """
    if not is_cluster():
        return rows(statement, now, BATCH_BELOW, last, client_id)
    with transaction.atomic():
        gone = rows(statement, now, BATCH_BELOW, last, client_id)
        for conversation_id, *_, number in gone:
            if number:
                said = {"cause": "kept long enough", "data": json.dumps(facts(number))}
                write_line(client_id, conversation_id, what, actor="system", actor_name="retention", at=now, **said)
    return gone


# Deletes rows of one table below ended conversations, which stay; their ledger says what was deleted.
_DELETE_BELOW = """
    WITH due AS (
        SELECT s.id, s.client_id, {since} AS since {due} AND s.client_id = $4 AND s.id > $3
        ORDER BY s.id LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED FOR SHARE OF p SKIP LOCKED),
    gone AS (
        DELETE FROM {table} t USING due
        WHERE t.client_id = $4 AND t.conversation_id = due.id AND {settled} RETURNING t.conversation_id),
    {also}
    counted AS (
        SELECT $4::uuid AS client_id, conversation_id AS id, count(*) AS number
        FROM gone GROUP BY conversation_id){noted}
    SELECT due.id, due.client_id, due.since, COALESCE(counted.number, 0)
    FROM due LEFT JOIN counted ON counted.id = due.id"""
# With the turns go the calls that they made, whose arguments and answers are of the same kind as their prompts.
_ALSO = {
    R.TURNS: """calls AS (
        DELETE FROM tool_calls o USING due
        WHERE o.client_id = $4 AND o.conversation_id = due.id AND o.status <> 'calling'),"""
}
_BELOW = {
    R.TURNS: ("conversation_turns", "t.status <> 'running'"),
    R.SENDS: ("conversation_messages", "t.status NOT IN ('queued', 'claimed', 'sending')"),
}


def _delete_below(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept, (table, settled) = KEPT[rule], _BELOW[rule]
    what = f"{rule.value}_deleted"
    statement = _DELETE_BELOW.format(
        since=kept.since,
        due=f"{retention_due(rule)} AND {kept.free}",
        table=table,
        settled=settled,
        also=_ALSO.get(rule, ""),
        noted=_noted(what, "counted", f"jsonb_build_object('rule', '{kept.setting}', 'deleted', number)"),
    )

    def facts(number: int) -> dict[str, Any]:
        return {"rule": kept.setting, "deleted": number}

    def of_client(client_id: UUID) -> None:
        last = UUID(int=0)
        while gone := _delete_with_lines(statement, now, last, client_id, facts, what):
            for *_, since, count in gone:
                if count:
                    done.line(client_id, rule).add(since, count)
            last = max(conversation_id for conversation_id, *_ in gone)
            progress(rule.shown, done.deleted(rule))

    _of_each_client(rule, done, of_client)


# A conversation that is not archived yet never will be: nobody would have its transcript.
_DELETE_MEMORY = """
    WITH due AS (
        SELECT m.conversation_id AS id, m.client_id, {since} AS since {due}
          AND m.client_id = $4 AND m.conversation_id > $3
        ORDER BY m.conversation_id LIMIT $2 FOR UPDATE OF m SKIP LOCKED),
    gone AS (
        DELETE FROM memories m USING due WHERE m.client_id = $4 AND m.conversation_id = due.id
        RETURNING m.conversation_id),
    known AS (
        SELECT s.client_id, s.id FROM conversations s JOIN gone ON gone.conversation_id = s.id
        WHERE s.client_id = $4){noted},
    never AS (
        UPDATE conversations s SET remembered_at = NULL FROM gone
        WHERE s.client_id = $4 AND s.id = gone.conversation_id AND s.archived_at IS NULL)
    SELECT id, client_id, since, (SELECT count(*) FROM known WHERE known.id = due.id) FROM due"""


def _delete_memory(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    if not is_on(rule):
        return
    kept = KEPT[rule]
    statement = _DELETE_MEMORY.format(
        since=kept.since,
        due=f"{retention_due(rule)} AND {kept.free}",
        noted=_noted("memory_deleted", "known", f"jsonb_build_object('rule', '{kept.setting}')"),
    )

    def facts(_number: int) -> dict[str, Any]:
        return {"rule": kept.setting}

    def of_client(client_id: UUID) -> None:
        last = UUID(int=0)
        while gone := _delete_with_lines(statement, now, last, client_id, facts, "memory_deleted"):
            for _, _, since, _ in gone:
                done.line(client_id, rule).add(since)
            last = max(conversation_id for conversation_id, *_ in gone)
            progress(rule.shown, done.deleted(rule))

    _of_each_client(rule, done, of_client)


_DELETE_EVENTS = """
    WITH due AS MATERIALIZED (
        SELECT e.id {due} ORDER BY e.received_at LIMIT $4 FOR UPDATE OF e SKIP LOCKED)
    DELETE FROM inbound_events USING due WHERE inbound_events.id = due.id
    RETURNING client_id, received_at"""


def _delete_events(rule: R, now: datetime, done: RetentionRun, progress: Progress) -> None:
    statement = _DELETE_EVENTS.format(due=f"{retention_due(rule)} AND {KEPT[rule].free}")
    total = 0
    # The holds are read for each batch: one may come while the run goes on.
    while gone := rows(statement, now, *mentions.patterns_of_held_contacts(), BATCH):
        for client_id, since in gone:
            done.line(client_id, rule).add(since)
        total += len(gone)
        progress(rule.shown, total)


DELETE: dict[R, Callable[[R, datetime, RetentionRun, Progress], None]] = {
    R.GUESTS: _delete_sessions,
    R.WEB: _delete_sessions,
    R.SESSIONS: _delete_sessions,
    R.MEMORY: _delete_memory,
    R.TURNS: _delete_below,
    R.SENDS: _delete_below,
    R.EVENTS: _delete_events,
}
