"""Dedupe keys and tombstones: how a message that is delivered again is recognised.

A chunk carries the dedupe key of its message. When the chunk goes, a tombstone keeps the key for as long as providers
deliver again, so that a late delivery opens no new conversation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from conversations.services.core.cluster import is_cluster, rows_over_all
from conversations.services.core.sql import column, row, rows

TOMBSTONE_DAYS = 8  # WhatsApp delivers again for 7 days
TOMBSTONES_LAST = timedelta(days=TOMBSTONE_DAYS)

_SEEN = """
    SELECT dedupe_key FROM conversation_chunks WHERE client_id = $2 AND dedupe_key = ANY($1::uuid[])
    UNION ALL SELECT dedupe_key FROM message_tombstones WHERE client_id = $2 AND dedupe_key = ANY($1::uuid[])"""
_WRITE_ONE = """
    INSERT INTO message_tombstones (dedupe_key, expires_at, client_id) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING RETURNING dedupe_key"""
_TRIM = """
    WITH gone AS (DELETE FROM message_tombstones t WHERE {only:t} AND t.expires_at < $1 RETURNING 1)
    SELECT count(*) FROM gone"""


def dedupe_key(scope: str, message_id: str) -> UUID | None:
    """Return 128 bits of BLAKE2b over a message's id and the scope in which its sender keeps ids unique; None without
    an id, since such a message cannot be told from another."""
    if not message_id:
        return None
    return UUID(bytes=hashlib.blake2b(f"{scope}\0{message_id}".encode(), digest_size=16).digest())


def is_new_sql(client: str) -> str:
    """Return SQL for whether the client's message with the dedupe key $6 of the statement was not here before.

    Each look finds the one row of the index that has the order it asks for, as `appending_sql.contact_sql` says.
    """
    looks = [
        f"""(SELECT d.dedupe_key FROM {table} d
           WHERE d.client_id = {client} AND d.dedupe_key >= $6 AND d.dedupe_key <= $6
           ORDER BY d.dedupe_key LIMIT 1) IS NULL"""
        for table in ("conversation_chunks", "message_tombstones")
    ]
    return "\n      AND ".join(looks)


def tombstones_sql(conversations: str, expires_at: str = "k.created_at + $3") -> str:
    """Return the INSERT that writes tombstones for the messages of `conversations`, at $1, with TOMBSTONES_LAST as $3.

    conversations: a table or common table expression with the columns `client_id` and `id`
    expires_at: SQL over the chunk `k`; what has expired by $1 gets no tombstone
    """
    return f"""
        INSERT INTO message_tombstones (client_id, dedupe_key, expires_at)
        SELECT k.client_id, k.dedupe_key, {expires_at} FROM conversation_chunks k
        JOIN {conversations} ON {conversations}.client_id = k.client_id AND {conversations}.id = k.conversation_id
        WHERE k.dedupe_key IS NOT NULL AND {expires_at} > $1
        ON CONFLICT DO NOTHING"""


_WRITE_ALL = f"""
    WITH gone AS (SELECT $4::uuid AS client_id, unnest($2::uuid[]) AS id)
    {tombstones_sql("gone", "$1::timestamptz + $3::interval")} RETURNING dedupe_key"""
# In a cluster an INSERT of what a CTE found needs every server.
_KEYS = """
    SELECT dedupe_key, created_at FROM conversation_chunks
    WHERE client_id = $1 AND conversation_id = ANY ($2::uuid[]) AND dedupe_key IS NOT NULL"""
_WRITE_THESE = """
    INSERT INTO message_tombstones (client_id, dedupe_key, expires_at)
    SELECT $1::uuid, t.key, t.expires_at FROM unnest($2::uuid[], $3::timestamptz[]) AS t(key, expires_at)
    ON CONFLICT DO NOTHING RETURNING dedupe_key"""


def write_tombstones(client_id: UUID, conversation_ids: Sequence[UUID], now: datetime) -> None:
    """Write a tombstone for every message of these conversations, however old: none of them may come back."""
    if is_cluster():
        _write(client_id, [(key, now + TOMBSTONES_LAST) for key, _ in _keys(client_id, conversation_ids)])
    else:
        rows(_WRITE_ALL, now, list(conversation_ids), TOMBSTONES_LAST, client_id)


def write_tombstones_of_late(client_id: UUID, conversation_ids: Sequence[UUID], now: datetime) -> None:
    """Write what `tombstones_sql` writes for these conversations, in a cluster."""
    found = [(key, at + TOMBSTONES_LAST) for key, at in _keys(client_id, conversation_ids)]
    _write(client_id, [(key, expires_at) for key, expires_at in found if expires_at > now])


def _keys(client_id: UUID, conversation_ids: Sequence[UUID]) -> list[tuple[UUID, datetime]]:
    return rows(_KEYS, client_id, list(conversation_ids))


def _write(client_id: UUID, tombstones: Sequence[tuple[UUID, datetime]]) -> None:
    if tombstones:
        keys, times = (list(each) for each in zip(*tombstones, strict=True))
        rows(_WRITE_THESE, client_id, keys, times)


def seen_keys(client_id: UUID, keys: Iterable[UUID | None]) -> set[UUID]:
    """Return those of the keys whose messages were here before."""
    return set(column(_SEEN, [key for key in keys if key], client_id))


def is_first_time(client_id: UUID, key: UUID, now: datetime) -> bool:
    """Write a tombstone for the key and return whether there was none, in the transaction of the caller."""
    return row(_WRITE_ONE, key, now + TOMBSTONES_LAST, client_id) is not None


def trim_tombstones(now: datetime) -> int:
    """Delete the tombstones that have expired and return how many there were."""
    return sum(int(trimmed) for (trimmed,) in rows_over_all(_TRIM, now))
