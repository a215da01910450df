"""Decisions on tool calls: approve or refuse one that waits for approval, and settle one of unknown outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from django.utils.translation import gettext

from conversations.models import Client, Conversation, ToolCall
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.replies.tool_calls import APPROVAL_WANTED, OUTCOME_WANTED

S = ToolCall.Status
DONE = "A colleague found out: this was done."
NOT_DONE = "A colleague found out: this was not done."


def approve(
    conversation_id: UUID | str,
    call_id: UUID,
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    client: Client | None = None,
) -> ToolCall:
    """Approve the waiting call and return it: the assistant makes it, and replies, at once.

    Approving it again changes nothing. Raises NotFoundError, or ConflictError (`ended`, or `decided`).
    """
    return _decide(conversation_id, call_id, S.APPROVED, actor, now, reason, client)


def refuse(
    conversation_id: UUID | str,
    call_id: UUID,
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    client: Client | None = None,
) -> ToolCall:
    """Refuse the waiting call and return it: the assistant is told so, with the reason, and replies at once.

    Refusing it again changes nothing. Raises NotFoundError, or ConflictError (`ended`, or `decided`).
    """
    return _decide(conversation_id, call_id, S.REFUSED, actor, now, reason, client)


def settle(
    conversation_id: UUID | str,
    call_id: UUID,
    *,
    done: bool,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
) -> ToolCall:
    """Note what a colleague found out of a call of unknown outcome, and return it. The next draft is told.

    Raises NotFoundError, or ConflictError (`not_unknown`).
    """
    with _editing(conversation_id, call_id, client, if_open=False) as (conversation, call):
        if call.status != S.UNKNOWN:
            raise ConflictError(
                gettext("The outcome of this call is known: %(status)s.")
                % {"status": call.get_status_display().lower()},
                code="not_unknown",
            )
        call.status, call.answer = (S.ANSWERED, DONE) if done else (S.FAILED, NOT_DONE)
        call.is_open, call.given_to = conversation.is_open, None
        _stamp(call, actor, now, "")
        call.decided_at = None  # no reply is owed to it: the next one tells
        call.save()
        record(conversation, "tool_settled", actor, cause=call.name, tool_call_id=str(call.pk), done=done)
        _note_attended(conversation)
    return call


def _decide(
    conversation_id: UUID | str,
    call_id: UUID,
    status: ToolCall.Status,
    actor: Actor,
    now: datetime,
    reason: str,
    client: Client | None,
) -> ToolCall:
    with _editing(conversation_id, call_id, client, if_open=True) as (conversation, call):
        if _decided(call) == status:
            return call
        if call.status != S.WAITING:
            raise ConflictError(
                gettext("This call does not wait for approval: it is %(status)s.")
                % {"status": call.get_status_display().lower()},
                code="decided",
                details={"status": call.status},
            )
        call.status, call.given_to = status, None  # a draft that is being written was told that it waits
        call.ended_at = now if status == S.REFUSED else None
        _stamp(call, actor, now, reason)
        call.save()
        record(conversation, f"tool_{status}", actor, cause=call.name, tool_call_id=str(call.pk))
        conversation.reply_owed, conversation.reply_due_at = True, now
        _note_attended(conversation)
    return call


def _decided(call: ToolCall) -> str:
    """Return the decision on the call, whatever became of it since; its status where nobody has decided."""
    undecided = (S.WAITING, S.REFUSED, S.EXPIRED)
    return S.APPROVED if call.decided_at and call.status not in undecided else call.status


def _stamp(call: ToolCall, actor: Actor, now: datetime, reason: str) -> None:
    call.decided_by_id, call.decided_by_name = actor.user_id, actor.name
    call.decided_at, call.reason = now, reason[:200]


def _note_attended(conversation: Conversation) -> None:
    """Let the conversation wait for staff no more, if it waited for this call alone."""
    others = ToolCall.objects.filter(conversation=conversation, status__in=[S.WAITING, S.UNKNOWN])
    about_tools = conversation.needs_staff_reason.startswith((APPROVAL_WANTED, OUTCOME_WANTED))
    if about_tools and not others.exists():
        conversation.needs_staff_since, conversation.needs_staff_reason = None, ""


@contextmanager
def _editing(
    conversation_id: UUID | str, call_id: UUID, client: Client | None, *, if_open: bool
) -> Iterator[tuple[Conversation, ToolCall]]:
    with editing(conversation_id, client) as conversation:
        found = ToolCall.objects.select_for_update().filter(conversation=conversation)
        call = found.filter(pk=call_id).first()
        if call is None:
            raise NotFoundError(gettext("There is no such tool call in this conversation."))
        if if_open and not conversation.is_open:
            raise ConflictError(
                gettext("This conversation is %(status)s. Its requests have expired.")
                % {"status": conversation.get_status_display().lower()},
                code="ended",
                details={"status": conversation.status},
            )
        yield conversation, call
