"""The end of a session."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from conversations.models import Client, Conversation, EndedBy, Status
from conversations.queue import enqueue
from conversations.services import delivery
from conversations.services.errors import ConflictError
from conversations.services.ledger import Actor, record
from conversations.services.transcript import lock

END_FIELDS = [
    *("status", "ended_at", "ended_by", "end_reason"),
    *("reply_owed", "needs_staff_since", "remember_due_at"),
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
        before = conversation.status
        conversation.status = Status.CLOSED
        conversation.ended_at = now
        conversation.ended_by = EndedBy(ended_by)
        conversation.end_reason = reason
        conversation.reply_owed = False
        conversation.needs_staff_since = None
        conversation.remember_due_at = None if conversation.is_guest else now
        conversation.save(update_fields=END_FIELDS)
        delivery.cancel_unsent(conversation, "closed")
        record(conversation, "closed", actor, cause=reason, from_status=before, to_status=Status.CLOSED)
        if conversation.remember_due_at:
            enqueue("remember_ended")
    return conversation
