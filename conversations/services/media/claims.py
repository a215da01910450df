"""Claims: which file a dispatcher fetches next, or writes down.

Clients take turns, by their weight (core/slots.py). A claim is a token, and moves `due_at` to its end: the work of a
dispatcher that died is due again by itself. Every write names the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings

from conversations.services.core.cluster import of_each
from conversations.services.core.rotation import Waiting, by_client
from conversations.services.core.slots import Lane, Slots, as_slots, claim_in_turn
from conversations.services.core.sql import column

_LANES = Waiting(
    *("attachments", "client_id", "due_at IS NOT NULL"),
    """
    SELECT c.id, c.weight, EXISTS (
        SELECT FROM attachments m WHERE m.client_id = {client} AND m.tries = 0 AND m.due_at <= $1 OFFSET 0)
    FROM {each} (
        SELECT id, weight FROM clients WHERE id = {id} AND id <> ALL ($2::uuid[]) OFFSET 0) AS c
    CROSS JOIN LATERAL (
        SELECT m.id FROM attachments m WHERE m.client_id = {client} AND m.due_at <= $1 LIMIT 1) AS due""",
)

_CLAIM = """
    WITH due AS (
        SELECT m.id FROM attachments m
        WHERE m.client_id = $4 AND m.due_at <= $1
        ORDER BY m.due_at
        LIMIT $2
        FOR UPDATE OF m SKIP LOCKED
    )
    UPDATE attachments m SET claim = $5, due_at = $3, tries = m.tries + 1
    FROM due WHERE m.id = due.id AND m.client_id = $4
    RETURNING m.id"""

_RENEW = """
    UPDATE attachments m SET due_at = $3
    FROM (SELECT id FROM attachments
          WHERE client_id = $2 AND id = ANY ($1) AND claim IS NOT NULL FOR UPDATE SKIP LOCKED) ours
    WHERE m.id = ours.id AND m.client_id = $2
    RETURNING m.id"""
# What was given back was no attempt.
_GIVE_BACK = """
    UPDATE attachments SET claim = NULL, due_at = $3, tries = GREATEST(tries - 1, 0)
    WHERE id = ANY ($1) AND client_id = $2 AND claim IS NOT NULL
    RETURNING id"""


def claim(now: datetime, slots: Slots | int) -> tuple[UUID, list[tuple[UUID, UUID]]]:
    """Claim due files for the duration of a lease, while slots are free.

    Returns the claims' token, and the client and id of each. Of one client the file that is due longest comes first;
    clients that have retries alone come after all others.

    slots: those of this process, which the files take; or how many files, without bounds for each client
    """
    room, token = as_slots(slots), uuid4()

    def of_client(lane: Lane, number: int) -> list[tuple[UUID, UUID]]:
        claimed = column(_CLAIM, now, number, now + lease(), lane.id, token)
        for pk in claimed:
            room.take(pk, lane)
        return [(lane.id, pk) for pk in claimed]

    lanes = [Lane(pk, pk, weight, is_new) for pk, weight, is_new in _LANES.rows(now, room.full_lanes())]
    return token, claim_in_turn(room, lanes, of_client)


def lease() -> timedelta:
    """Return for how long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


def renew(claimed: Sequence[tuple[UUID, UUID]], now: datetime) -> None:
    """Extend the claims on files (client, id) that are still being worked on."""
    until = now + lease()
    list(of_each(_by_client(claimed).items(), lambda client_id, ids: column(_RENEW, ids, client_id, until)))


def give_back(claimed: Sequence[tuple[UUID, UUID]], now: datetime) -> int:
    """Let the files (client, id) that were claimed and not finished be due at once, and return how many there were."""
    each = of_each(_by_client(claimed).items(), lambda client_id, ids: column(_GIVE_BACK, ids, client_id, now))
    return sum(map(len, each))


def _by_client(claimed: Sequence[tuple[UUID, UUID]]) -> dict[UUID, list[UUID]]:
    return by_client({pk: client_id for client_id, pk in claimed})
