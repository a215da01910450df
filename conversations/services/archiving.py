"""After `archive_after` a remembered session leaves the hot tables: its chunks go, and with them what hangs on them.

The session, its summary and its ledger stay; the transcript is read from memory.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from conversations.services.database import column, row, rows
from conversations.services.errors import ConflictError
from conversations.services.ledger import Actor
from conversations.services.lifecycle import BATCH, TOMBSTONE_DAYS, Progress

# Only what memory holds: `remembered_at` says so. The index "to_be_archived" has nothing else.
DUE = """
    FROM conversations s JOIN clients c ON c.id = s.client_id
    WHERE s.remembered_at IS NOT NULL AND s.remember_due_at IS NULL AND s.archived_at IS NULL
      AND s.ended_at <= $1 - c.archive_after"""

_ONE_DUE = """
    FROM conversations s
    WHERE s.id = $7 AND s.remembered_at IS NOT NULL AND s.remember_due_at IS NULL AND s.archived_at IS NULL"""

# $1 now, $2 how many, $3 how long tombstones stay, $4 and $5 the actor, $6 the cause.
_ARCHIVE = """
    WITH due AS (SELECT s.id, s.status AS before {due} ORDER BY s.ended_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED),
    moved AS (
        UPDATE conversations s SET status = 'archived', archived_at = $1 FROM due WHERE s.id = due.id
        RETURNING s.id, due.before),
    kept AS (
        INSERT INTO message_tombstones (dedupe_key, expires_at)
        SELECT k.dedupe_key, k.created_at + $3 FROM conversation_chunks k JOIN moved ON moved.id = k.conversation_id
        WHERE k.dedupe_key IS NOT NULL AND k.created_at + $3 > $1
        ON CONFLICT DO NOTHING),
    gone AS (DELETE FROM conversation_chunks k USING moved WHERE k.conversation_id = moved.id)
    INSERT INTO conversation_events
        (conversation_id, kind, from_status, to_status, cause, actor, actor_name, created_at)
    SELECT id, 'archived', before, 'archived', $6, $4, $5, $1 FROM moved
    RETURNING conversation_id"""

_KEPT_FOR = timedelta(days=TOMBSTONE_DAYS)


def archive(now: datetime, progress: Progress = lambda _what, _count: None) -> int:
    """Every session that is due at `now` is archived. Returns how many were.

    Harmless to repeat and to interrupt: each batch is one statement.
    """
    total = 0
    by_time = ("system", "archive", "archive_after is over")
    while moved := len(rows(_ARCHIVE.format(due=DUE), now, BATCH, _KEPT_FOR, *by_time)):
        total += moved
        progress("archived", total)
    return total


def archive_one(conversation_id: UUID, *, actor: Actor, now: datetime) -> None:
    """The ended and remembered session is archived before its time.

    Raises ConflictError (`not_remembered`) if it is open, archived already, or memory does not hold it as it is.
    """
    by_hand = (actor.kind, actor.name, "by hand")
    if not rows(_ARCHIVE.format(due=_ONE_DUE), now, 1, _KEPT_FOR, *by_hand, conversation_id):
        raise ConflictError("Only a session that has ended and is remembered can be archived.", code="not_remembered")


def due(now: datetime, examples: int = 3) -> tuple[int, list[str]]:
    """How many sessions would be archived at `now`, and some of their ids."""
    counted = row(f"SELECT count(*) {DUE}", now)
    found = column(f"SELECT s.id {DUE} ORDER BY s.ended_at LIMIT $2", now, examples)
    return (int(counted[0]) if counted else 0), [str(pk) for pk in found]
