"""Simple receipts in bulk: one statement applies many of them, because providers send several for each message.

A simple receipt only moves a message forward. receipts.py is the general form, which may apply any receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.services.core.appending_sql import ACCOUNT_VERSION
from conversations.services.core.cluster import is_known_cluster
from conversations.services.core.event_notes import deliveries_sql, note_delivery
from conversations.services.core.sql import rows
from conversations.services.core.statements import Statements

_RANK = {ReceiptStatus.SENT: 1, ReceiptStatus.DELIVERED: 2, ReceiptStatus.READ: 3}

# Each message moves to the furthest of its receipts. Its row is locked before its status is read, in the order in which
# other statements lock several messages. It is found by a subquery of its own and not by a join: a plan that was kept
# since the table was small may otherwise read all messages that the account ever sent.
_UNCHANGED = f"""
        WHERE $5::text IS NULL OR $5 = (
            SELECT {ACCOUNT_VERSION} FROM channel_accounts a JOIN clients c ON c.id = a.client_id WHERE a.id = $1)"""
_MOVE_ON = f"""
    WITH said AS (
        SELECT r.id, max(r.rank) AS rank, min(r.at) AS sent_at,
               min(r.at) FILTER (WHERE r.rank >= 2) AS delivered_at, min(r.at) FILTER (WHERE r.rank >= 3) AS read_at
        FROM unnest($2::text[], $3::int[], $4::timestamptz[]) AS r(id, rank, at){_UNCHANGED}
        GROUP BY r.id
    ), known AS MATERIALIZED (
        SELECT said.*, m.id AS message
        FROM said CROSS JOIN LATERAL (
            SELECT m.id, m.chunk_id, m.part FROM conversation_messages m
            WHERE m.client_id = $6 AND m.channel_account_id = $1 AND m.provider_message_id = said.id
              AND m.provider_message_id <> ''
            OFFSET 0) m
        ORDER BY m.chunk_id, m.part
    ), theirs AS MATERIALIZED (
        SELECT known.*, COALESCE(array_position(ARRAY['sent', 'delivered', 'read'], m.status::text), 0) AS reached
        FROM known CROSS JOIN LATERAL (
            SELECT m.status FROM conversation_messages m
            WHERE m.client_id = $6 AND m.id = known.message FOR UPDATE) m
        WHERE m.status IN ('sending', 'unknown', 'sent', 'delivered', 'read')
    ), moved AS (
        UPDATE conversation_messages m
        SET status = (ARRAY['sent', 'delivered', 'read'])[theirs.rank],
            sent_at = COALESCE(m.sent_at, theirs.sent_at),
            delivered_at = COALESCE(m.delivered_at, theirs.delivered_at),
            read_at = COALESCE(m.read_at, theirs.read_at),
            lease_token = NULL, lease_until = NULL
        FROM theirs WHERE m.client_id = $6 AND m.id = theirs.message AND theirs.reached < theirs.rank
        RETURNING m.client_id, m.id AS message, m.status
    ), noted AS ({deliveries_sql("moved")}
    )
    SELECT id FROM theirs"""
# The beginning of the same for a cluster: whatever has become of the account, since it has no version of rows, and
# without the notes, since an INSERT of what a CTE found needs every server.
_MOVE_ON_ANYWAY = f"""{_MOVE_ON.partition(", noted AS")[0].replace(_UNCHANGED, " WHERE $5::text IS NULL")}
    SELECT theirs.id, theirs.message, moved.status FROM theirs LEFT JOIN moved ON moved.message = theirs.message"""


def simple_receipts(said: Sequence[Receipt]) -> list[Receipt]:
    """Return the receipts of messages that all receipts given here only move forward.

    Failures are left to receipts.py, and so are receipts that the provider numbers, because their order decides.
    """
    others = {each.provider_message_id for each in said if _needs_general_form(each)}
    return [each for each in said if each.provider_message_id not in others]


def _needs_general_form(receipt: Receipt) -> bool:
    return receipt.status == ReceiptStatus.FAILED or receipt.sequence is not None


async def apply(
    statements: Statements, client_id: UUID, account_id: UUID, said: Sequence[Receipt], version: str | None = None
) -> set[str]:
    """Move the messages of the client's account forward to the status of these receipts, in one statement.

    Returns the provider's ids of the messages that it found. It finds those that are on their way and known by the
    provider's id.

    version: do nothing unless the account and its client still have this version (see tenants/account_cache.py)
    """
    now = timezone.now()
    ids = [each.provider_message_id for each in said]
    ranks = [_RANK[each.status] for each in said]
    times = [each.occurred_at or now for each in said]
    values = (account_id, ids, ranks, times, version, client_id)
    if is_known_cluster():
        return await statements.in_thread(_apply_in_cluster, values)
    found = await statements.rows(_MOVE_ON, *values)
    return {provider_message_id for (provider_message_id,) in found}


def _apply_in_cluster(values: tuple[Any, ...]) -> set[str]:
    *_, client_id = values
    with transaction.atomic():
        found = rows(_MOVE_ON_ANYWAY, *values)
        for _, message_id, status in found:
            if status:
                note_delivery(client_id, message_id, status)
    return {provider_message_id for provider_message_id, *_ in found}
