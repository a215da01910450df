"""Claim the messages of the outbox that are due, for the duration of a lease.

Messages of a conversation go oldest first: one is claimed only if all before it are settled. An `unknown` one delays
the rest by a minute at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction

from conversations.services.core.rotation import Waiting
from conversations.services.core.slots import Bound, Lane, Slots, as_slots, claim_in_turn
from conversations.services.core.sql import column
from conversations.services.delivery import circuits, throttles
from conversations.services.tenants import channel_accounts

UNKNOWN_DELAY = timedelta(minutes=1)
# What an account or a host may hold of a process, in times of what is left free. With core/slots.CLIENT_TIMES between
# them, a provider that hangs leaves slots to its client's other accounts, and a client to the others at its host.
ACCOUNT_TIMES, HOST_TIMES = 2, 4


class ClaimedMessage(NamedTuple):
    """A message that is ours to send while its lease lasts: its client's id and its own."""

    client_id: UUID
    message_id: UUID


_QUEUED = "m.status = 'queued' AND m.due_at <= $1"
_LANES = Waiting(
    *("conversation_messages", "channel_account_id", "status = 'queued'"),
    f"""
    SELECT a.*, EXISTS (
        SELECT FROM conversation_messages m
        WHERE m.client_id = {{client}} AND m.channel_account_id = a.id AND m.attempts = 0 AND {_QUEUED} OFFSET 0)
    FROM {{each}} (
        SELECT a.id, a.client_id, c.weight, a.provider, a.base_url, a.is_simulated, {circuits.IS_OPEN}
        FROM channel_accounts a JOIN clients c ON c.id = a.client_id {circuits.JOIN.format(client="{client}")}
        WHERE a.id = {{id}} AND a.id <> ALL ($2::uuid[]) AND a.health = 'ok' AND a.is_active AND {circuits.MAY_SEND}
          AND {throttles.ACCOUNT_NOT_PAUSED.format(now="$1", client="{client}")}
        OFFSET 0) AS a
    CROSS JOIN LATERAL (
        SELECT m.id FROM conversation_messages m
        WHERE m.client_id = {{client}} AND m.channel_account_id = a.id AND {_QUEUED} LIMIT 1) AS due""",
    of="a.client_id",
)

# OFFSET 0 keeps the planner from joining: where it does not know how much is due, it would read all for each.
_CLAIM = f"""
    WITH due AS (
        SELECT m.id
        FROM conversation_messages m
        WHERE m.client_id = $7 AND m.channel_account_id = $6 AND {_QUEUED}
          AND {throttles.NOT_PAUSED.format(now="$1", client="$7")}
          AND NOT EXISTS (
            SELECT FROM conversation_messages earlier
            WHERE earlier.client_id = $7 AND earlier.conversation_id = m.conversation_id
              AND earlier.status IN ('queued', 'claimed', 'sending', 'unknown')
              AND (earlier.chunk_id, earlier.part) < (m.chunk_id, m.part)
              AND NOT (earlier.status = 'unknown' AND earlier.sending_at < $4)
            OFFSET 0)
        ORDER BY m.due_at, m.chunk_id, m.part
        LIMIT $2
        FOR UPDATE OF m SKIP LOCKED
    )
    UPDATE conversation_messages m
    SET status = 'claimed', lease_until = $3, lease_token = $5, attempts = m.attempts + 1
    FROM due WHERE m.client_id = $7 AND m.id = due.id
    RETURNING m.id"""


def claim(now: datetime, slots: Slots | int) -> tuple[UUID, Sequence[ClaimedMessage]]:
    """Claim due messages for the duration of the lease, while slots are free.

    Returns the lease's token and the messages.

    Clients take turns, by their weight, and so do the accounts of each. Accounts that have retries alone come after all
    others. Of one account the message that is due longest comes first.

    slots: those of this process, which the messages take; or how many messages, without bounds for each account
    """
    room, token = as_slots(slots), uuid4()

    def of_account(lane: Lane, number: int) -> Sequence[ClaimedMessage]:
        claimed = (_claim_probe if lane.most else _claim)(now, lane, number, token)
        for message_id in claimed:
            room.take(message_id, lane)
        return [ClaimedMessage(lane.client_id, message_id) for message_id in claimed]

    lanes = [_lane(*found) for found in _LANES.rows(now, room.full_lanes())]
    return token, claim_in_turn(room, lanes, of_account)


def _lane(
    account_id: UUID,
    client_id: UUID,
    weight: int,
    provider: str,
    base_url: str,
    is_simulated: bool,
    is_open: bool,
    is_new: bool,
) -> Lane:
    """Return the lane of an account. One whose provider cannot be reached may have one send in flight, the probe."""
    host = channel_accounts.host_of(provider, base_url, is_simulated=is_simulated)
    bounds = (Bound(account_id, ACCOUNT_TIMES), *([Bound(host, HOST_TIMES)] if host else []))
    return Lane(account_id, client_id, weight, is_new and not is_open, most=1 if is_open else None, bounds=bounds)


def _claim(now: datetime, lane: Lane, limit: int, token: UUID) -> Sequence[UUID]:
    until, unknown = now + lease_duration(), now - UNKNOWN_DELAY
    return column(_CLAIM, now, limit, until, unknown, token, lane.id, lane.client_id)


def _claim_probe(now: datetime, lane: Lane, _limit: int, token: UUID) -> Sequence[UUID]:
    """Claim the message by which the account's provider is tried, if it is time for one."""
    with transaction.atomic():
        if not circuits.lock_for_probe(lane.client_id, lane.id, now):
            return []
        claimed = _claim(now, lane, 1, token)
        for message_id in claimed:
            circuits.begin_probe(lane.client_id, lane.id, message_id, now)
    return claimed


def lease_duration() -> timedelta:
    """Return how long a claim lasts unless it is renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)
