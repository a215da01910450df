"""The end of a session."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from conversations.models import Client, Conversation, EndedBy, Status
from conversations.queue import enqueue
from conversations.services.core.appending import lock
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor, record
from conversations.services.delivery import outbox
from conversations.services.engine_chats import chats
from conversations.services.transitions import takeover

END_FIELDS = [
    *("status", "ended_at", "ended_by", "end_reason"),
    *("reply_owed", "needs_staff_since", "remember_due_at"),
    *("taken_over_by", "taken_over_name", "taken_over_at", "taken_over_until"),
]


def close(
    conversation_id: UUID | str,
    *,
    ended_by: str,
    actor: Actor,
    now: datetime,
    reason: str = "",
    client: Client | None = None,
) -> Conversation:
    """The session is closed: nothing is owed or sent any more. Closing a closed one changes nothing.

    Raises NotFoundError, or ConflictError (`ended`) if it ended otherwise.
    """
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        if conversation.status == Status.CLOSED:
            return conversation
        if not conversation.is_open:
            raise ConflictError(
                f"This session is {conversation.status} already.",
                code="ended",
                details={"status": conversation.status},
            )
        outbox.cancel_unsent(conversation, "closed")
        end(conversation, ended_by=ended_by, actor=actor, now=now, reason=reason)
    return conversation


def end(conversation: Conversation, *, ended_by: str, actor: Actor, now: datetime, reason: str = "") -> None:
    """The locked open session is closed, and nobody of ours has it any more. What is to be sent still is the caller's
    affair."""
    before = conversation.status
    conversation.status = Status.CLOSED
    conversation.ended_at = now
    conversation.ended_by = EndedBy(ended_by)
    conversation.end_reason = reason
    conversation.reply_owed = False
    conversation.needs_staff_since = None
    conversation.remember_due_at = None if conversation.is_guest else now
    takeover.let_go(conversation)
    conversation.save(update_fields=END_FIELDS)
    record(conversation, "closed", actor, cause=reason, from_status=before, to_status=Status.CLOSED)
    chats.end_soon(conversation, now)
    if conversation.remember_due_at:
        enqueue("remember_ended")
