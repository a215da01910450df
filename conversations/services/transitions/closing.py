"""Closing a conversation."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext

from conversations.models import Client, Conversation, EndedBy, Status
from conversations.queue import enqueue
from conversations.services.core import tool_requests
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.delivery import outbox
from conversations.services.engine_chats import chats
from conversations.services.transitions import rating_questions, takeover


def close(
    conversation_id: UUID | str,
    *,
    ended_by: str,
    actor: Actor,
    now: datetime,
    reason: str = "",
    client: Client | None = None,
) -> Conversation:
    """Close the conversation and return it: no reply is owed and nothing is sent any more.

    Closing a closed conversation changes nothing. Raises NotFoundError, or ConflictError (`ended`) if it has expired or
    is archived.
    """
    with editing(conversation_id, client) as conversation:
        if conversation.status == Status.CLOSED:
            return conversation
        if not conversation.is_open:
            raise ConflictError(
                gettext("This conversation is %(status)s already.")
                % {"status": conversation.get_status_display().lower()},
                code="ended",
                details={"status": conversation.status},
            )
        outbox.cancel_unsent(conversation, "closed")
        end(conversation, ended_by=ended_by, actor=actor, now=now, reason=reason)
    return conversation


def end(conversation: Conversation, *, ended_by: str, actor: Actor, now: datetime, reason: str = "") -> None:
    """Close the locked open conversation. Call it within `locking.saving`.

    Messages that are queued stay queued: the caller cancels them, or allows them (`outbox.allow_sending`).
    """
    before = conversation.status
    conversation.status = Status.CLOSED
    conversation.ended_at = now
    conversation.ended_by = EndedBy(ended_by)
    conversation.end_reason = reason
    conversation.reply_owed = False
    conversation.needs_staff_since = None
    conversation.remember_due_at = None if conversation.is_guest else now
    takeover.release(conversation)
    tool_requests.expire(conversation, now)
    record(conversation, "closed", actor, cause=reason, from_status=before, to_status=Status.CLOSED)
    chats.schedule_end(conversation, now)
    if conversation.remember_due_at:
        enqueue("remember_ended")
    rating_questions.schedule(conversation)
