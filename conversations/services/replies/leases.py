"""Claims: a turn is the claim on a conversation's next reply, for as long as its lease lasts.

    owed        the conversation owes a reply; claiming it makes the turn
    streamed    a signed-in user asked for a reply, which made the turn; claiming it is an attempt at it

Every write names the attempt, so that a process that was away too long writes nothing into another's attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from conversations.models import Turn
from conversations.services.core.sql import column, rows, unlocked
from conversations.services.history.recall import RECALLS

SUSPECT_AFTER_CRASHES = 2  # the conversation may have been there by chance once


@dataclass(frozen=True, slots=True)
class ClaimedTurn:
    """An attempt at a turn that is ours while its lease lasts.

    recalls     earlier conversations are to be looked up before (history/recall.py)
    calls       tools are to be called before (tool_calls.begin_waiting)
    """

    turn_id: UUID
    conversation_id: UUID
    attempt: int
    recalls: bool
    calls: bool


@dataclass(frozen=True, slots=True)
class OwedTurn(ClaimedTurn):
    """The claim on an owed reply on the conversation's channel. `exhausted`: it was tried often enough, and fails now.
    `suspect`: its conversation was there more than once when a process died, and perhaps is the reason."""

    exhausted: bool
    suspect: bool
    channel: str


@dataclass(frozen=True, slots=True)
class StreamedTurn(ClaimedTurn):
    """An attempt at a reply that somebody reads along. `stopped`: it is not to be written any more."""

    login_id: int | None
    stopped: bool


def lease() -> timedelta:
    """Return for how long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


# Calls that a colleague approved, or that a process was making when it died.
CALLS = """EXISTS (
        SELECT FROM tool_calls u
        WHERE u.conversation_id = s.id AND u.is_open AND u.status IN ('approved', 'calling'))"""


# --- owed replies -----------------------------------------------------------------------------------------------------
_DUE = f"""
    SELECT s.id, s.channel, s.reply_attempts, s.reply_crashes, s.inbound_sequence,
        {RECALLS} AS recalls, {CALLS} AS calls
    FROM conversations s
    WHERE s.reply_owed AND s.reply_due_at <= $1 AND s.taken_over_at IS NULL AND s.reply_crashes {{crashes}}
      AND NOT EXISTS (SELECT FROM conversation_turns t WHERE t.conversation_id = s.id AND t.status = 'running')
    ORDER BY s.reply_due_at
    LIMIT {{limit}}
    FOR NO KEY UPDATE OF s SKIP LOCKED"""


def claim(now: datetime, limit: int, suspects: int = 1) -> list[OwedTurn]:
    """Claim up to `limit` replies that are due, and up to `suspects` of suspect conversations beside them.

    The attempt is counted before it begins, so that a turn that takes its process down cannot do so for ever. A process
    that holds no more than one suspect turn finds out which one it is: when it dies, only that one is counted. Where
    two dispatchers see the same conversation, the constraint on running turns lets one in.
    """
    claimed = rows(
        f"""
        WITH usual AS ({_DUE.format(crashes="< $4", limit="$2")}),
        suspect AS ({_DUE.format(crashes=">= $4", limit="$5")}),
        due AS (SELECT * FROM usual UNION ALL SELECT * FROM suspect),
        begun AS (
            INSERT INTO conversation_turns
                (id, conversation_id, status, attempt, inbound_sequence, lease_until, started_at, engine, model, draft,
                 finish_reason, tokens_in, tokens_out, code, reason)
            SELECT gen_random_uuid(), id, 'running', reply_attempts + 1, inbound_sequence, $3, $1, '', '', '',
                   '', 0, 0, '', ''
            FROM due
            ON CONFLICT (conversation_id) WHERE status = 'running' DO NOTHING
            RETURNING id, conversation_id, attempt
        ), counted AS (
            UPDATE conversations s SET reply_attempts = begun.attempt FROM begun WHERE s.id = begun.conversation_id
        )
        SELECT begun.id, begun.conversation_id, begun.attempt, due.recalls, due.calls,
            begun.attempt > $6 OR due.reply_crashes >= $6, due.reply_crashes >= $4, due.channel
        FROM begun JOIN due ON due.id = begun.conversation_id
        """,
        now,
        limit,
        now + lease(),
        SUSPECT_AFTER_CRASHES,
        suspects,
        settings.REPLY_ATTEMPTS,
    )
    return [OwedTurn(*found) for found in claimed]


def renew(turn_ids: Sequence[UUID], now: datetime) -> None:
    """Extend the leases of turns that are still being worked on; one that is just being ended is left alone."""
    with transaction.atomic():
        ours = Turn.objects.filter(pk__in=turn_ids, status=Turn.Status.RUNNING, waiting_until=None)
        unlocked(ours).update(lease_until=now + lease())


# A turn that went down with its process is no attempt of its conversation's, which may have been there by chance: it is
# counted as a crash. A turn that was given back is neither. One that waits for a callback has no process. The
# conversation's row is locked first (core/locking.py).
_ABANDON = """
    WITH lost AS (
        SELECT t.id, t.conversation_id
        FROM conversation_turns t JOIN conversations s ON s.id = t.conversation_id
        WHERE t.status = 'running' AND t.waiting_until IS NULL AND {which}
        FOR NO KEY UPDATE OF s, t SKIP LOCKED
    ), ended AS (
        UPDATE conversation_turns t SET status = 'abandoned', ended_at = $1, code = '{code}'
        FROM lost WHERE t.id = lost.id
    )
    UPDATE conversations s
    SET reply_attempts = GREATEST(s.reply_attempts - 1, 0), reply_crashes = s.reply_crashes + {crashes}
    FROM lost WHERE s.id = lost.conversation_id
    RETURNING s.id"""

_RECOVER = _ABANDON.format(which="NOT t.streamed AND t.lease_until < $1", code="lease_over", crashes=1)
_GIVE_BACK = _ABANDON.format(which="t.id = ANY($2)", code="stopped", crashes=0)


def recover(now: datetime) -> int:
    """Abandon the turns of dead dispatchers and return how many there were; their conversations still owe the reply."""
    return len(rows(_RECOVER, now))


def give_back(turn_ids: Sequence[UUID], now: datetime) -> int:
    """Abandon turns of ours as if they had not begun, and return how many of them were still running."""
    return len(rows(_GIVE_BACK, now, list(turn_ids)))


# --- streamed replies -------------------------------------------------------------------------------------------------
_OURS = """unnest($1::uuid[], $2::int[]) AS mine (id, attempt)
    WHERE t.id = mine.id AND t.attempt = mine.attempt AND t.status = 'running'"""


def claim_streamed(now: datetime, limit: int) -> list[StreamedTurn]:
    """Claim up to `limit` streamed turns that nobody writes, each for a further attempt, and delete their deltas."""
    claimed = rows(
        f"""
        WITH free AS (
            SELECT id FROM conversation_turns
            WHERE status = 'running' AND streamed AND waiting_until IS NULL AND lease_until <= $1
            ORDER BY lease_until
            LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED
        ), ours AS (
            UPDATE conversation_turns t SET attempt = t.attempt + 1, lease_until = $3 FROM free WHERE t.id = free.id
            RETURNING t.id, t.attempt, t.conversation_id, t.stop_asked_at
        ), gone AS (
            DELETE FROM copilot_deltas d USING free WHERE d.turn_id = free.id
        )
        SELECT o.id, o.conversation_id, o.attempt, {RECALLS}, {CALLS}, p.login_id,
               o.stop_asked_at IS NOT NULL OR s.taken_over_at IS NOT NULL
        FROM ours o JOIN conversations s ON s.id = o.conversation_id JOIN contacts p ON p.id = s.contact_id
        """,
        now,
        limit,
        now + lease(),
    )
    return [StreamedTurn(*found) for found in claimed]


def renew_streamed(turns: Sequence[ClaimedTurn], now: datetime) -> None:
    """Extend the leases of streamed turns that are still being written, as far as they are ours."""
    free_streamed(turns, now + lease())


def free_streamed(turns: Sequence[ClaimedTurn], at: datetime) -> None:
    """Let the leases of streamed turns of ours run out at this time, when anybody may take them."""
    column(f"UPDATE conversation_turns t SET lease_until = $3 FROM {_OURS} RETURNING t.id", *attempts_of(turns), at)


def stopped_or_lost(turns: Sequence[ClaimedTurn]) -> tuple[set[UUID], set[UUID]]:
    """Return the ids of the turns that are to stop where they are, and of those that are not ours any more.

    A turn stops where the user asked for it, a colleague has the conversation, or it has ended.
    """
    found = rows(
        f"""
        SELECT t.id, t.stop_asked_at IS NOT NULL OR s.taken_over_at IS NOT NULL OR s.status NOT IN ('active', 'stale')
        FROM conversations s, conversation_turns t, {_OURS} AND s.id = t.conversation_id
        """,
        *attempts_of(turns),
    )
    return {pk for pk, stopped in found if stopped}, {each.turn_id for each in turns} - {pk for pk, _ in found}


def attempts_of(turns: Sequence[ClaimedTurn]) -> tuple[list[UUID], list[int]]:
    """Return the ids and the attempts of the turns, as two lists for `unnest`."""
    return [each.turn_id for each in turns], [each.attempt for each in turns]
