"""How sessions age: set by set, in batches that skip what somebody else holds, so that no sweep stops a message.

Ended sessions are not looked at: every statement starts from the index of the open ones, or of the expired guests.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import connection, transaction

from conversations.models import MessageTombstone
from conversations.services import delivery, idempotency, pauses, replaying, replies, sign_ins, takeover
from conversations.services.database import column, row, rows
from conversations.services.takeover import ABANDONED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

BATCH = 2_000
TOMBSTONE_DAYS = 8  # providers deliver again for 7
Progress = Callable[[str, int], None]

# Whose time is over at $1. A takeover suspends ageing, which begins anew with the hand-back, and sessions on the web do
# not age at all.
_AGE = "GREATEST(s.last_message_at, s.handed_back_at)"
_AGED = """
    FROM conversations s JOIN clients c ON c.id = s.client_id
    WHERE s.status IN ({statuses}) AND {age} <= $1 - c.{after}
      AND s.taken_over_at IS NULL AND s.channel <> 'web'"""

_STILL_TIME = f"({_AGE} > $1 - c.expire_after OR s.extended_until > $1)"
STALE_DUE = _AGED.format(statuses="'active'", age=_AGE, after="stale_after") + f" AND {_STILL_TIME}"
EXPIRY_DUE = (
    _AGED.format(statuses="'active', 'stale'", age=_AGE, after="expire_after")
    + " AND (s.extended_until IS NULL OR s.extended_until <= $1)"
)
GUESTS_DUE = """
    FROM conversations s JOIN contacts held ON held.id = s.contact_id AND held.hold_reason = ''
    WHERE s.status = 'expired' AND s.is_guest AND s.ended_at <= $1"""

_MARK_STALE = f"""
    WITH due AS (SELECT s.id {STALE_DUE} LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED),
    moved AS (UPDATE conversations s SET status = 'stale' FROM due WHERE s.id = due.id RETURNING s.id)
    INSERT INTO conversation_events
        (conversation_id, kind, from_status, to_status, cause, actor, actor_name, created_at)
    SELECT id, 'stale', 'active', 'stale', 'no message within stale_after', 'system', 'sweep', $1 FROM moved
    RETURNING conversation_id"""

_EXPIRE = f"""
    WITH due AS (SELECT s.id, s.status AS before {EXPIRY_DUE} LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED),
    moved AS (
        UPDATE conversations s
        SET status = 'expired', ended_at = $1, ended_by = 'timeout', end_reason = 'no message within expire_after',
            reply_owed = false, needs_staff_since = NULL,
            remember_due_at = CASE WHEN s.is_guest THEN NULL ELSE $1::timestamptz END
        FROM due WHERE s.id = due.id RETURNING s.id, due.before),
    unsent AS (
        UPDATE conversation_messages m
        SET status = 'cancelled', code = 'expired', lease_until = NULL, lease_token = NULL
        FROM moved WHERE m.conversation_id = moved.id AND m.status IN ('queued', 'claimed'))
    INSERT INTO conversation_events
        (conversation_id, kind, from_status, to_status, cause, actor, actor_name, created_at)
    SELECT id, 'expired', before, 'expired', 'no message within expire_after', 'system', 'sweep', $1 FROM moved
    RETURNING conversation_id"""

# One statement: the tombstones are written and the session goes, or neither. Chunks and the rest cascade.
_PURGE = f"""
    WITH due AS (SELECT s.id, s.contact_id {GUESTS_DUE} LIMIT $2 FOR UPDATE OF s SKIP LOCKED),
    remembered AS (
        INSERT INTO message_tombstones (dedupe_key, expires_at)
        SELECT c.dedupe_key, c.created_at + $3 FROM conversation_chunks c JOIN due ON due.id = c.conversation_id
        WHERE c.dedupe_key IS NOT NULL AND c.created_at + $3 > $1
        ON CONFLICT DO NOTHING)
    DELETE FROM conversations s USING due WHERE s.id = due.id RETURNING due.contact_id"""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, or would do (then `examples` names some of the sessions)."""

    stale: int = 0
    expired: int = 0
    purged: int = 0
    recovered: int = 0
    tombstones: int = 0
    handed_back: int = 0
    replayed: int = 0
    skipped: bool = False
    examples: dict[str, list[str]] = field(default_factory=dict)


def sweep(now: datetime, progress: Progress = lambda _what, _count: None) -> SweepReport:
    """Every session is as old as it should be at `now`, expired guests are gone, what dead processes held is free, and
    what we failed to process was tried again.

    Harmless to repeat and to interrupt: each batch is a statement of its own. While one sweep runs another returns at
    once, `skipped`.
    """
    report = SweepReport()
    with alone("convo.sweep") as only_one:
        if not only_one:
            report.skipped = True
            return report
        report.handed_back = takeover.hand_back_abandoned(now)
        report.expired = _in_batches(_EXPIRE, now, lambda count: progress("expired", count))
        report.stale = _in_batches(_MARK_STALE, now, lambda count: progress("stale", count))
        report.purged = purge_guests(now, progress)
        report.recovered = replies.recover(now) + delivery.recover(now)
        idempotency.trim(now)
        pauses.forget(now)
        sign_ins.forget(now)
        report.tombstones = MessageTombstone.objects.filter(expires_at__lt=now).delete()[0]
        report.replayed = replaying.retry_failed(now)
    return report


def preview(now: datetime, examples: int = 3) -> SweepReport:
    """What a sweep at `now` would do. Nothing changes. Guests that would expire are counted as purged too."""
    report = SweepReport()
    expiring_guests = f"{EXPIRY_DUE} AND s.is_guest"
    for name, due in [
        ("expired", EXPIRY_DUE),
        ("stale", STALE_DUE),
        ("handed_back", ABANDONED),
        ("purged", GUESTS_DUE),
        ("purged", expiring_guests),
    ]:
        setattr(report, name, getattr(report, name) + _count(due, now))
        found = report.examples.setdefault(name, [])
        found += [str(pk) for pk in column(f"SELECT s.id {due} LIMIT $2", now, examples - len(found))]
    return report


def purge_guests(now: datetime, progress: Progress = lambda _what, _count: None) -> int:
    """Expired sessions of guests are gone with everything below them, and guests without sessions too.

    The ids of their messages stay as tombstones for 8 days. Returns how many sessions there were.
    """
    purged = 0
    while contacts := column(_PURGE, now, BATCH, timedelta(days=TOMBSTONE_DAYS)):
        _delete_guests(list(set(contacts)))
        purged += len(contacts)
        progress("purged", purged)
    return purged


def guests_due(now: datetime, examples: int = 3) -> tuple[int, list[str]]:
    """How many sessions a purge would delete now, and some of their ids."""
    return _count(GUESTS_DUE, now), [str(pk) for pk in column(f"SELECT s.id {GUESTS_DUE} LIMIT $2", now, examples)]


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


def _in_batches(statement: str, now: datetime, progress: Callable[[int], None]) -> int:
    total = 0
    while moved := len(rows(statement, now, BATCH)):
        total += moved
        progress(total)
    return total


def _count(due: str, now: datetime) -> int:
    found = row(f"SELECT count(*) {due}", now)
    return int(found[0]) if found else 0


@contextmanager
def alone(name: str) -> Iterator[bool]:
    """Whether no other process does this now; the lock goes with the connection, however the process ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [name])
        [(alone,)] = cursor.fetchall()
        try:
            yield alone
        finally:
            if alone:
                cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
