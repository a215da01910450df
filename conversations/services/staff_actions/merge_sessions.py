"""Merging two open conversations of one person on one channel: one gets the messages of both in the order of time."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import (
    Activity,
    AgentState,
    Attachment,
    Chunk,
    Conversation,
    EndedBy,
    EngineChat,
    Feedback,
    IdempotencyKey,
    Mention,
    Message,
    OrderLink,
    Proposal,
    RollingSummary,
    StaffNote,
    Status,
    Step,
    ToolCall,
    Turn,
)
from conversations.services.core import proposals
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import saving
from conversations.services.core.sql import rows
from conversations.services.transitions import closing, pending_handovers
from conversations.words import with_values

GOES_ON = with_values("Goes on in %(conversation)s")

# The chunks of both in the order of time, but each conversation's in the order of its positions where its clock ran
# backwards. In two steps, since no two chunks may have the same position at any moment: first to positions beyond all
# ($3), then to where they belong.
_TOGETHER = """
    WITH reached AS (
        SELECT k.id, k.conversation_id, k.position, s.started_at,
               max(k.created_at) OVER (PARTITION BY k.conversation_id ORDER BY k.position) AS at
        FROM conversation_chunks k JOIN conversations s ON s.client_id = k.client_id AND s.id = k.conversation_id
        WHERE k.client_id = $4 AND k.conversation_id IN ($1, $2)
    ), placed AS (
        SELECT id, row_number() OVER (ORDER BY at, started_at, conversation_id, position) AS place FROM reached
    )
    UPDATE conversation_chunks k SET conversation_id = $1, position = placed.place + $3
    FROM placed WHERE k.client_id = $4 AND placed.id = k.id
    RETURNING k.id"""
_IN_PLACE = """
    UPDATE conversation_chunks SET position = position - $2
    WHERE client_id = $3 AND conversation_id = $1 RETURNING id"""

# Rows that move with the chunks. Agent states and orders move where the conversation that goes on has none of its own.
FOLLOWING = (
    Message,
    Turn,
    Step,
    Feedback,
    IdempotencyKey,
    ToolCall,
    Activity,
    StaffNote,
    Mention,
    Attachment,
    Proposal,
)


def merge_conversations(into: Conversation, other: Conversation, *, actor: Actor, now: datetime) -> None:
    """Move the messages of `other` into `into`, which goes on, and close `other`, whose ledger stays.

    Replies that are being written are abandoned and stay owed. Both conversations are open and locked; call it in a
    transaction, before the contact changes.
    """
    Turn.objects.filter(client=into.client_id, conversation__in=[into.pk, other.pk], status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code="merged"
    )
    hidden = _last_hidden(into, other)
    beyond = into.last_position + other.last_position
    moved = len(rows(_TOGETHER, into.pk, other.pk, beyond, into.client_id))
    rows(_IN_PLACE, into.pk, beyond, into.client_id)
    for each in (into, other):  # neither answers what both have now
        proposals.outdate(each, now)
    for model in FOLLOWING:
        model._default_manager.filter(conversation=other).update(conversation=into)
    _move_agent_state(into, other)
    pending_handovers.move(into, other)
    before = other.last_position
    with saving(into), saving(other):
        _restart_summary_and_chat(into)
        _merge_fields(into, other, _highest_position(into.client_id, hidden))
        into.last_position = moved
        _clear(other)
        ended_by = EndedBy.STAFF if actor.kind == Kind.STAFF else EndedBy.SYSTEM
        closing.end(other, ended_by=ended_by, actor=actor, now=now, reason=GOES_ON % {"conversation": into.pk})
        other.remember_due_at = None  # there is nothing to remember
    record(into, "joined", actor, cause=f"with {other.pk}", other=str(other.pk), entries=before)


def _last_hidden(*conversations: Conversation) -> list[int]:
    """Return the ids of the last chunks that a reset has hidden from assistants."""
    return [
        chunk.pk
        for each in conversations
        if each.history_from
        and (chunk := each.chunks.filter(position__lte=each.history_from).order_by("-position").first())
    ]


def _highest_position(client_id: UUID, chunk_ids: list[int]) -> int | None:
    """Return the highest position of the chunks now, so that no hidden message is shown again; None for no chunks."""
    positions = (
        Chunk.objects.filter(client=client_id, pk__in=chunk_ids)
        .order_by("-position")
        .values_list("position", flat=True)
    )
    return positions.first() if chunk_ids else None


def _move_agent_state(into: Conversation, other: Conversation) -> None:
    if not AgentState.objects.filter(conversation=into).exists():
        AgentState.objects.filter(conversation=other).update(conversation=into)
    known = OrderLink.objects.filter(conversation=into).values("order_id")
    OrderLink.objects.filter(conversation=other).exclude(order_id__in=known).update(conversation=into)


def _restart_summary_and_chat(into: Conversation) -> None:
    """Clear what was made of the chunks at their old positions.

    The summary is made again when a prompt needs it. The next reply begins another chat at an engine that keeps chats.
    """
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


def _merge_fields(into: Conversation, other: Conversation, hidden_upto: int | None) -> None:
    """Set the fields of `into` from both: its own topic, summary, takeover and so on, or else those of `other`."""
    newest = max(into, other, key=lambda each: each.last_message_at)
    into.channel_account_id = newest.channel_account_id or into.channel_account_id
    into.device_id = newest.device_id or into.device_id
    into.status = Status.ACTIVE if Status.ACTIVE in (into.status, other.status) else Status.STALE
    into.last_message_at = newest.last_message_at
    into.inbound_sequence += other.inbound_sequence
    into.history_from = hidden_upto
    into.topic = into.topic or other.topic
    into.current_goal = into.current_goal or other.current_goal
    into.summary = into.summary or (other.summary if not _is_rolling(other) else "")
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


def _is_rolling(conversation: Conversation) -> bool:
    """Return whether the summary was made of the conversation's chunks, which another conversation has now."""
    return RollingSummary.objects.filter(conversation=conversation, upto__gt=0).exists()


def _both(ours: Any, others: Any) -> Any:
    return {**others, **ours} if isinstance(ours, dict) and isinstance(others, dict) else ours


def _earliest(*times: datetime | None) -> datetime | None:
    return min((each for each in times if each), default=None)


def _latest(*times: datetime | None) -> datetime | None:
    return max((each for each in times if each), default=None)


def _clear(other: Conversation) -> None:
    other.last_position = other.inbound_sequence = 0
    other.history_from = None
    other.summary = ""
