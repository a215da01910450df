"""Who answers which session: a turn is the claim on a session that owes a reply, for as long as its lease lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from conversations.models import Turn
from conversations.services.core.sql import rows, unlocked
from conversations.services.history.recall import RECALLS

SUSPECT_AFTER_CRASHES = 2  # once it was there by chance


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that is ours while its lease lasts. `exhausted`: it was tried often enough, nothing more is tried.
    `suspect`: its session was there more than once when a process died, and perhaps is why. `recalls`: earlier sessions
    are to be looked up first (keeping/recall.py)."""

    turn_id: UUID
    conversation_id: UUID
    exhausted: bool
    suspect: bool = False
    recalls: bool = False


_DUE = f"""
    SELECT s.id, s.reply_attempts, s.reply_crashes, s.inbound_sequence, {RECALLS} AS recalls
    FROM conversations s
    WHERE s.reply_owed AND s.reply_due_at <= $1 AND s.taken_over_at IS NULL AND s.reply_crashes {{crashes}}
      AND NOT EXISTS (SELECT FROM conversation_turns t WHERE t.conversation_id = s.id AND t.status = 'running')
    ORDER BY s.reply_due_at
    LIMIT {{limit}}
    FOR NO KEY UPDATE OF s SKIP LOCKED"""


def claim(now: datetime, limit: int, suspects: int = 1) -> list[Claim]:
    """Up to `limit` sessions that owe a reply by now have a running turn that is ours, and `suspects` of the suspect
    ones beside them.

    The attempt is counted before it begins, so that a turn that takes its process down cannot do so for ever. Who holds
    no more than one suspect turn at a time finds out which one it is: when that process dies, of all the suspects only
    the one that was held is counted. Two dispatchers that see the same session: the constraint on running turns lets
    one in.
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
        SELECT begun.id, begun.conversation_id, begun.attempt > $6 OR due.reply_crashes >= $6, due.reply_crashes >= $4,
            due.recalls
        FROM begun JOIN due ON due.id = begun.conversation_id
        """,
        now,
        limit,
        now + lease(),
        SUSPECT_AFTER_CRASHES,
        suspects,
        settings.REPLY_ATTEMPTS,
    )
    return [Claim(*found) for found in claimed]


def lease() -> timedelta:
    """How long a claim lasts without being renewed."""
    return timedelta(seconds=settings.LEASE_SECONDS)


def renew(turn_ids: Sequence[UUID], now: datetime) -> None:
    """The turns are still being worked on. One that somebody is just ending is left alone."""
    with transaction.atomic():
        unlocked(Turn.objects.filter(pk__in=turn_ids, status=Turn.Status.RUNNING)).update(lease_until=now + lease())


# A turn that went down with its process is no attempt of its session's, which may have been there by chance: it is
# counted as a crash. One that was given back is neither. The session's row is locked first, as by all who end a turn.
_ABANDON = """
    WITH lost AS (
        SELECT t.id, t.conversation_id
        FROM conversation_turns t JOIN conversations s ON s.id = t.conversation_id
        WHERE t.status = 'running' AND {which}
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
    """Turns of a dead dispatcher are abandoned; their sessions still owe the reply. Returns how many."""
    return len(rows(_RECOVER, now))


def give_back(turn_ids: Sequence[UUID], now: datetime) -> int:
    """The turns, which are ours, are abandoned as if they had not begun. Returns how many were still running."""
    return len(rows(_GIVE_BACK, now, list(turn_ids)))
