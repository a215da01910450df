"""Archiving: after `archive_after` a remembered conversation leaves the hot tables; its chunks are deleted.

The conversation, its summary, its ledger and the files of its messages stay. The transcript is read from memory.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext, gettext_noop

from conversations.services.core.cluster import is_cluster
from conversations.services.core.deadlines import ARCHIVE_DUE, FREE, IS_REMEMBERED
from conversations.services.core.dedupe import TOMBSTONES_LAST, tombstones_sql, write_tombstones_of_late
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor, Kind, events_sql, write_line
from conversations.services.core.locking import client_of
from conversations.services.core.rotation import Waiting, in_rotation
from conversations.services.core.sql import column, row, rows
from conversations.services.retention import holds
from conversations.services.retention.deletions import BATCH, Progress

_ONE_DUE = f"""
    FROM conversations s JOIN clients c ON c.id = s.client_id
    JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
    WHERE s.client_id = $3 AND s.id = $4 AND {IS_REMEMBERED} AND {FREE}"""

_CLIENTS = Waiting(
    *("conversations", "client_id", "remembered_at IS NOT NULL AND archived_at IS NULL"),
    f"""
    SELECT c.id, c.weight
    FROM {{each}} (SELECT id, weight, archive_after FROM clients WHERE id = {{id}} OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT s.id FROM conversations s
        WHERE s.client_id = {{client}} AND {IS_REMEMBERED} AND s.ended_at <= $1 - c.archive_after LIMIT 1) AS due""",
)
# The condition on the end alone is for the index.
_DUE_OF_CLIENT = f"""{ARCHIVE_DUE} AND s.client_id = $3
      AND s.ended_at <= $1 - (SELECT archive_after FROM clients WHERE id = $3)"""


def _lock(due_sql: str) -> str:
    """Return the statement that locks those due ($1 now, $2 how many, $3 the client) and returns them with the facts
    of their line.

    It is a statement of its own: the next ones see what was stored beside the chunks until then.
    """
    return f"""
        SELECT s.id, s.status,
            jsonb_build_object('rule', 'archive_after', 'seconds', extract(epoch from c.archive_after),
                'since', s.ended_at)::text
        {due_sql} ORDER BY s.ended_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED"""


# $1 now, $2 the locked conversations, $3 how long tombstones stay, $4 and $5 the actor, $6 the cause, $7 the client, $8
# and $9 the conversations' states and the facts of their lines.
_LINES = events_sql(
    "archived",
    "moved",
    from_status="before",
    to_status="'archived'",
    cause="$6",
    actor="$4::varchar",
    actor_name="$5",
    data="facts",
)

# By table: which rows go with the chunks. Files stay. A turn without a chunk wrote no reply; retention deletes it.
_WITH_CHUNKS = {
    "desk_proposals": "true",
    "conversation_messages": "true",
    "conversation_turns": "x.chunk_id IS NOT NULL",
    "conversation_activities": "true",
    "copilot_feedback": "true",
    "conversation_chunks": "true",
}
_GONE = ",\n".join(
    f"""    gone_{table} AS (
        DELETE FROM {table} x USING moved WHERE x.client_id = $7 AND x.conversation_id = moved.id AND {which})"""
    for table, which in _WITH_CHUNKS.items()
)
_ARCHIVE = f"""
    WITH moved AS (
        UPDATE conversations s SET status = 'archived', archived_at = $1
        FROM unnest($2::uuid[], $8::text[], $9::jsonb[]) AS due (id, before, facts)
        WHERE s.client_id = $7 AND s.id = due.id
        RETURNING s.client_id, s.id, due.before, due.facts),
    tombstones AS ({tombstones_sql("moved")}),
    files AS (
        UPDATE attachments a SET position = k.position, chunk_id = NULL
        FROM moved JOIN conversation_chunks k ON k.client_id = $7 AND k.conversation_id = moved.id
        WHERE a.client_id = $7 AND a.chunk_id = k.id),
{_GONE}
    {_LINES}
    RETURNING conversation_id"""

# The parts of the same in a cluster, where an INSERT of what a CTE found needs every server. $1 is the client, $2 its
# conversations.
_MOVE = """
    UPDATE conversations SET status = 'archived', archived_at = $3 WHERE client_id = $1 AND id = ANY ($2::uuid[])
    RETURNING id"""
_KEEP_FILES = """
    UPDATE attachments a SET position = k.position, chunk_id = NULL FROM conversation_chunks k
    WHERE a.client_id = $1 AND k.client_id = $1 AND k.conversation_id = ANY ($2::uuid[]) AND a.chunk_id = k.id
    RETURNING a.id"""
_DELETE = tuple(
    f"DELETE FROM {table} x WHERE x.client_id = $1 AND x.conversation_id = ANY ($2::uuid[]) AND {which}"
    " RETURNING x.client_id"
    for table, which in _WITH_CHUNKS.items()
)


def _archive(due_sql: str, now: datetime, most: int, who: tuple[str, str, str], client_id: UUID, *which: UUID) -> int:
    """Archive at most so many of the client's conversations that are due, and return how many there were.

    who: the kind and the name of the actor, and the cause
    """
    with transaction.atomic():
        due = rows(_lock(due_sql), now, most, client_id, *which)
        if not due:
            return 0
        ids, states, facts = (list(each) for each in zip(*due, strict=True))
        if who[0] != Kind.SYSTEM:
            facts = ["{}"] * len(ids)
        if is_cluster():
            _archive_in_cluster(ids, states, facts, now, who, client_id)
        else:
            rows(_ARCHIVE, now, ids, TOMBSTONES_LAST, *who, client_id, states, facts)
    return len(ids)


def _archive_in_cluster(
    ids: list[UUID], states: list[str], facts: list[str], now: datetime, who: tuple[str, str, str], client_id: UUID
) -> None:
    rows(_MOVE, client_id, ids, now)
    write_tombstones_of_late(client_id, ids, now)
    for statement in (_KEEP_FILES, *_DELETE):
        rows(statement, client_id, ids)
    actor, name, cause = who
    for pk, before, data in zip(ids, states, facts, strict=True):
        moved = {"from_status": before, "to_status": "archived", "cause": cause, "data": data}
        write_line(client_id, pk, "archived", actor=actor, actor_name=name, at=now, **moved)


def archive(now: datetime, progress: Progress = lambda _what, _count: None) -> int:
    """Archive every conversation that is due at `now` and return how many there were.

    It is safe to repeat and to interrupt: each batch is one transaction. Clients take turns, a batch each.

    progress: called after each batch with "archived" and the number so far
    """
    total = 0
    by_time = ("system", "archive", gettext_noop("archive_after is over"))

    def clients() -> list[tuple[UUID, int]]:
        return [(pk, weight) for pk, weight in _CLIENTS.rows(now)]

    def move(client_id: UUID) -> int | None:
        return _archive(_DUE_OF_CLIENT, now, BATCH, by_time, client_id) or None

    for moved in in_rotation(clients, move):
        total += moved
        progress("archived", total)
    return total


def archive_one(conversation_id: UUID, *, actor: Actor, now: datetime) -> None:
    """Archive the ended and remembered conversation before its time.

    Raises ConflictError: `not_remembered` if it is open, archived already or not remembered in its current state;
    `on_hold` if a legal hold keeps it.
    """
    client_id = client_of(conversation_id)
    if client_id is None:
        raise NotFoundError(gettext("There is no such conversation."))
    holds.refuse_if_held(client_id, conversation_id)
    by_hand = (actor.kind, actor.name, gettext_noop("by hand"))
    if not _archive(_ONE_DUE, now, 1, by_hand, client_id, conversation_id):
        raise ConflictError(
            gettext("Only a conversation that has ended and is remembered can be archived."), code="not_remembered"
        )


def count_due(now: datetime, examples: int = 3) -> tuple[int, list[str]]:
    """Return how many conversations would be archived at `now`, and at most `examples` of their ids."""
    counted = row(f"SELECT count(*) {ARCHIVE_DUE}", now)
    found = column(f"SELECT s.id {ARCHIVE_DUE} ORDER BY s.ended_at LIMIT $2", now, examples)
    return (int(counted[0]) if counted else 0), [str(pk) for pk in found]
