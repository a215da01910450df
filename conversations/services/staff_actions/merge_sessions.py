"""Two open sessions of one person on one channel become one: what was said in both, in the order of time."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import (
    AgentState,
    Chunk,
    Conversation,
    EndedBy,
    EngineChat,
    Feedback,
    IdempotencyKey,
    Message,
    OrderLink,
    RollingSummary,
    Status,
    Step,
    Turn,
)
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import saving
from conversations.services.core.sql import rows
from conversations.services.transitions import closing

# The order of time, and of each session's own positions where its clock ran backwards. In two steps, since no two
# entries may have the same position at any moment: first beyond all that there are ($3), then to where they belong.
_TOGETHER = """
    WITH reached AS (
        SELECT k.id, k.conversation_id, k.position, s.started_at,
               max(k.created_at) OVER (PARTITION BY k.conversation_id ORDER BY k.position) AS at
        FROM conversation_chunks k JOIN conversations s ON s.id = k.conversation_id
        WHERE k.conversation_id IN ($1, $2)
    ), placed AS (
        SELECT id, row_number() OVER (ORDER BY at, started_at, conversation_id, position) AS place FROM reached
    )
    UPDATE conversation_chunks k SET conversation_id = $1, position = placed.place + $3
    FROM placed WHERE placed.id = k.id
    RETURNING k.id"""
_IN_PLACE = "UPDATE conversation_chunks SET position = position - $2 WHERE conversation_id = $1 RETURNING id"

# What follows the entries. Agent states and orders follow where the session that goes on has none of its own.
FOLLOWING = (Message, Turn, Step, Feedback, IdempotencyKey)


def join(into: Conversation, other: Conversation, *, actor: Actor, now: datetime) -> None:
    """What was said in `other` was said in `into`, which goes on; `other` is closed, without entries, and its ledger
    stays. Replies that are being written are given up, and owed.

    Both are open, and locked; call it in a transaction, before the contact changes.
    """
    Turn.objects.filter(conversation__in=[into.pk, other.pk], status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code="merged"
    )
    marks = _marks(into, other)
    beyond = into.last_position + other.last_position
    moved = len(rows(_TOGETHER, into.pk, other.pk, beyond))
    rows(_IN_PLACE, into.pk, beyond)
    for model in FOLLOWING:
        model._default_manager.filter(conversation=other).update(conversation=into)
    _follow_the_agent(into, other)
    before = other.last_position
    with saving(into), saving(other):
        _begin_anew(into)
        _take_on(into, other, _placed(marks))
        into.last_position = moved
        _empty(other)
        ended_by = EndedBy.STAFF if actor.kind == Kind.STAFF else EndedBy.SYSTEM
        closing.end(other, ended_by=ended_by, actor=actor, now=now, reason=f"Goes on in {into.pk}")
        other.remember_due_at = None  # there is nothing to remember
    record(into, "joined", actor, cause=f"with {other.pk}", other=str(other.pk), entries=before)


def _marks(*sessions: Conversation) -> list[int]:
    """The entries up to which assistants are not shown what was said."""
    return [
        chunk.pk
        for session in sessions
        if session.history_from
        and (chunk := session.chunks.filter(position__lte=session.history_from).order_by("-position").first())
    ]


def _placed(marks: list[int]) -> int | None:
    """Where the last of them is now: nothing that was hidden is shown again."""
    places = Chunk.objects.filter(pk__in=marks).order_by("-position").values_list("position", flat=True)
    return places.first() if marks else None


def _follow_the_agent(into: Conversation, other: Conversation) -> None:
    if not AgentState.objects.filter(conversation=into).exists():
        AgentState.objects.filter(conversation=other).update(conversation=into)
    known = OrderLink.objects.filter(conversation=into).values("order_id")
    OrderLink.objects.filter(conversation=other).exclude(order_id__in=known).update(conversation=into)


def _begin_anew(into: Conversation) -> None:
    """What was made of the entries at their old positions: the summary so far is made again when a prompt needs it, and
    the next reply begins another chat at an engine that keeps the conversation itself."""
    rolling = RollingSummary.objects.select_for_update().filter(conversation=into).first()
    if rolling:
        if rolling.upto:
            into.summary = ""
        rolling.upto = rolling.wanted = rolling.attempts = 0
        rolling.version, rolling.due_at = rolling.version + 1, None
        rolling.save()
    EngineChat.objects.filter(conversation=into, status=EngineChat.Status.ONGOING).update(
        status=EngineChat.Status.REPLACED, due_at=None
    )
    into.chat_id = ""


def _take_on(into: Conversation, other: Conversation, hidden_upto: int | None) -> None:
    """What `other` was about, owed, and was held by, where `into` has nothing to say about it."""
    newest = max(into, other, key=lambda session: session.last_message_at)
    into.channel_account_id = newest.channel_account_id or into.channel_account_id
    into.device_id = newest.device_id or into.device_id
    into.status = Status.ACTIVE if Status.ACTIVE in (into.status, other.status) else Status.STALE
    into.last_message_at = newest.last_message_at
    into.inbound_sequence += other.inbound_sequence
    into.history_from = hidden_upto
    into.topic = into.topic or other.topic
    into.current_goal = into.current_goal or other.current_goal
    into.summary = into.summary or (other.summary if not _absorbed(other.pk) else "")
    into.metadata = _both(into.metadata, other.metadata)
    into.variables = _both(into.variables, other.variables)
    into.extended_until = _latest(into.extended_until, other.extended_until)
    into.burst_began_at = _earliest(*(each.burst_began_at for each in (into, other) if each.reply_owed))
    into.reply_due_at = _earliest(*(each.reply_due_at for each in (into, other) if each.reply_owed))
    into.reply_owed = into.reply_owed or other.reply_owed
    into.reply_attempts = into.reply_crashes = into.drafts_overtaken = 0
    if other.needs_staff_since and not into.needs_staff_since:
        into.needs_staff_since, into.needs_staff_reason = other.needs_staff_since, other.needs_staff_reason
    if other.taken_over_at and not into.taken_over_at:
        into.taken_over_by_id, into.taken_over_name = other.taken_over_by_id, other.taken_over_name
        into.taken_over_at, into.taken_over_until = other.taken_over_at, other.taken_over_until


def _absorbed(session: UUID) -> bool:
    """Whether the session's summary was made of its entries, which are another's now."""
    return RollingSummary.objects.filter(conversation=session, upto__gt=0).exists()


def _both(ours: Any, others: Any) -> Any:
    return {**others, **ours} if isinstance(ours, dict) and isinstance(others, dict) else ours


def _earliest(*times: datetime | None) -> datetime | None:
    return min((each for each in times if each), default=None)


def _latest(*times: datetime | None) -> datetime | None:
    return max((each for each in times if each), default=None)


def _empty(other: Conversation) -> None:
    other.last_position = other.inbound_sequence = 0
    other.history_from = None
    other.summary = ""
