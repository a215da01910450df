"""The writing of streamed turns, in the dispatcher: claim, let an engine write, keep the pieces, keep the whole.

    claim ─► prepare (rows) ─► engine (waits, no thread of its own) ─► keep (rows)
                                    └─► pieces, all turns' together, every tenth of a second (rows)

A turn is written by whoever holds its lease. Each taking is an attempt, and every write names its attempt: one who was
away too long writes nothing into the attempt of another. Where the dispatcher dies, the next attempt begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from conversations.engines.contract import EngineError, Reply
from conversations.models import Chunk, Conversation, Delta, Role, Turn
from conversations.services.copilot.turns import ENDED
from conversations.services.core import redaction
from conversations.services.core.appending import ACTIVITY_FIELDS, lock, note_answered, write_chunks
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import ASSISTANT, Actor, Kind
from conversations.services.core.sql import column, rows
from conversations.services.history.recall import RECALLS
from conversations.services.replies import prompt_records, tool_actions
from conversations.services.replies.leases import lease
from conversations.services.replies.replies import HUMAN_WANTED
from conversations.services.transitions import takeover

log = logging.getLogger(__name__)

ATTEMPTS = 3  # of the dispatcher's own accord, as long as nothing was said; then the person may try again
PAUSE_SECONDS = 1.0  # before the second attempt; twice as long before the third
LONGEST_PAUSE_SECONDS = 5.0  # nobody watches an empty bubble for longer
STOPPED = "stopped"
TurnStatus = Turn.Status


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt at a turn that is ours while its lease lasts. `recalls`: earlier sessions are to be looked up first
    (services/keeping/recall.py)."""

    turn_id: UUID
    attempt: int
    conversation_id: UUID
    login_id: int | None
    stopped: bool
    recalls: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What was written since the last time: `start` counts the characters before it."""

    claim: Claim
    start: int
    text: str


def claim(now: datetime, limit: int) -> list[Claim]:
    """Up to `limit` turns that nobody writes are ours, each with a further attempt; the pieces of earlier ones go."""
    claimed = rows(
        f"""
        WITH free AS (
            SELECT id FROM conversation_turns
            WHERE status = 'running' AND streamed AND lease_until <= $1
            ORDER BY lease_until
            LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED
        ), ours AS (
            UPDATE conversation_turns t SET attempt = t.attempt + 1, lease_until = $3 FROM free WHERE t.id = free.id
            RETURNING t.id, t.attempt, t.conversation_id, t.stop_asked_at
        ), gone AS (
            DELETE FROM copilot_deltas d USING free WHERE d.turn_id = free.id
        )
        SELECT o.id, o.attempt, o.conversation_id, p.login_id,
               o.stop_asked_at IS NOT NULL OR s.taken_over_at IS NOT NULL, {RECALLS}
        FROM ours o JOIN conversations s ON s.id = o.conversation_id JOIN contacts p ON p.id = s.contact_id
        """,
        now,
        limit,
        now + lease(),
    )
    return [Claim(*each) for each in claimed]


def renew(claims: Sequence[Claim], now: datetime) -> None:
    """They are still being written, as far as they are ours."""
    column(
        f"UPDATE conversation_turns t SET lease_until = $3 FROM {_OURS} RETURNING t.id",
        *_names(claims),
        now + lease(),
    )


def stopped_or_lost(claims: Sequence[Claim]) -> tuple[set[UUID], set[UUID]]:
    """The turns that are to end where they are, as the person asked for it or a colleague has the session or it has
    ended, and those that are not ours any more."""
    found = rows(
        f"""
        SELECT t.id, t.stop_asked_at IS NOT NULL OR s.taken_over_at IS NOT NULL OR s.status NOT IN ('active', 'stale')
        FROM conversations s, conversation_turns t, {_OURS} AND s.id = t.conversation_id
        """,
        *_names(claims),
    )
    return {pk for pk, stopped in found if stopped}, {each.turn_id for each in claims} - {pk for pk, _ in found}


_OURS = """unnest($1::uuid[], $2::int[]) AS mine (id, attempt)
    WHERE t.id = mine.id AND t.attempt = mine.attempt AND t.status = 'running'"""


def _names(claims: Sequence[Claim]) -> tuple[list[UUID], list[int]]:
    return [each.turn_id for each in claims], [each.attempt for each in claims]


def keep_pieces(pieces: Sequence[Piece]) -> None:
    """Whoever reads along finds the pieces; those of a turn that is not ours any more are dropped."""
    column(
        """
        INSERT INTO copilot_deltas (turn_id, attempt, start, text, login_id)
        SELECT n.turn_id, n.attempt, n.start, n.text, n.login_id
        FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::int[])
             AS n (turn_id, attempt, start, text, login_id)
        JOIN conversation_turns t ON t.id = n.turn_id AND t.attempt = n.attempt AND t.status = 'running'
        ON CONFLICT DO NOTHING
        RETURNING start
        """,
        *_names([each.claim for each in pieces]),
        [each.start for each in pieces],
        [each.text for each in pieces],
        [each.claim.login_id for each in pieces],
    )


def release(claims: Sequence[Claim], now: datetime) -> None:
    """What we began and did not end is free at once."""
    column(f"UPDATE conversation_turns t SET lease_until = $3 FROM {_OURS} RETURNING t.id", *_names(claims), now)


def keep(claim: Claim, reply: Reply, now: datetime) -> str:
    """The reply is a chunk, if the session still is the assistant's. Returns the turn's status."""
    return _end(claim, now, reply)


def keep_stopped(claim: Claim, said: str, now: datetime) -> str:
    """What was said until the person stopped it is a chunk. Returns the turn's status."""
    return _end(claim, now, Reply(text=said.rstrip(), engine="", finish_reason=STOPPED), code=STOPPED)


def fail(claim: Claim, error: EngineError, said: str, now: datetime) -> str:
    """What was said before it failed is a chunk, marked; the person may have it tried again. Returns the turn's status.

    Where nothing was said yet and trying again may help, the turn runs on, and is free in a moment.
    """
    pause = max(error.retry_after or 0, PAUSE_SECONDS * claim.attempt)
    if error.retryable and not said.strip() and claim.attempt < ATTEMPTS and pause <= LONGEST_PAUSE_SECONDS:
        release([claim], now + timedelta(seconds=pause))
        return TurnStatus.RUNNING
    log.warning("streamed turn failed: conversation=%s code=%s", claim.conversation_id, error.code)
    half = Reply(text=said.rstrip(), engine="", finish_reason=error.code[:20])
    return _end(claim, now, half, failed=True, code=error.code, reason=str(error))


def _end(claim: Claim, now: datetime, reply: Reply, *, failed: bool = False, code: str = "", reason: str = "") -> str:
    with transaction.atomic():
        found = _locked(claim)
        if found is None:
            return TurnStatus.ABANDONED
        turn, conversation = found
        code = _silenced(conversation) or code
        reply = redaction.clean_reply(redaction.rules_of(conversation.client), reply)
        turn.draft, turn.finish_reason = reply.text, reply.finish_reason
        turn.engine, turn.model = reply.engine or turn.engine, reply.model or turn.model
        turn.tokens_in, turn.tokens_out = reply.tokens_in, reply.tokens_out
        turn.cost = prompt_records.cost(reply.model, reply.tokens_in, reply.tokens_out)
        turn.first_token_ms, turn.last_token_ms = reply.first_token_ms, reply.last_token_ms
        turn.code, turn.reason, turn.ended_at = code[:40], reason[:500], now
        turn.tool_calls = [asdict(call) for call in reply.tool_calls] or None
        speaks = bool(reply.text) and not _silenced(conversation)
        if speaks:
            turn.chunk = _speak(conversation, reply.text, code, now)
            if _do(conversation, reply, now):
                turn.code = HUMAN_WANTED
        if failed:
            turn.status = TurnStatus.FAILED
        else:
            turn.status = TurnStatus.COMMITTED if speaks else TurnStatus.DROPPED
        turn.save()
        Delta.objects.filter(turn=turn)._raw_delete(using="default")
    return turn.status


def _do(conversation: Conversation, reply: Reply, now: datetime) -> bool:
    """What the model did beside speaking is done. Returns whether it asked for a person, who has the session then."""
    assistant = conversation.assistant
    speaker = Actor(Kind.ASSISTANT, assistant.key) if assistant else ASSISTANT
    wishes = tool_actions.do(conversation, reply.deeds, speaker)
    if wishes.human:
        takeover.take(conversation, speaker, now, reason=wishes.why or "the assistant asks for a person")
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *takeover.TAKEOVER_FIELDS])
    return wishes.human


def _locked(claim: Claim) -> tuple[Turn, Conversation] | None:
    """The turn and its conversation, locked, if the attempt is still ours and neither was deleted."""
    try:
        conversation = lock(claim.conversation_id)
    except NotFoundError:
        return None
    ours = Turn.objects.select_for_update().filter(status=TurnStatus.RUNNING, attempt=claim.attempt)
    turn = ours.filter(pk=claim.turn_id).first()
    return (turn, conversation) if turn else None


def _silenced(conversation: Conversation) -> str:
    """Why the assistant may not speak any more, or ''."""
    if not conversation.is_open:
        return "ended"
    return "taken_over" if conversation.taken_over_at is not None else ""


def _speak(conversation: Conversation, text: str, code: str, now: datetime) -> Chunk:
    [chunk] = write_chunks(conversation, [(Role.AI, text)], now, metadata={ENDED: code} if code else {})
    note_answered(conversation)
    conversation.save(
        update_fields=["last_position", "last_message_at", "reply_owed", "reply_attempts", "drafts_overtaken"]
    )
    return chunk
