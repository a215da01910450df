"""The end of chats at Retell: ended by Convo with their conversation, by their Retell agent, or by silence.

`settle_due` does what is due (a background task); `apply_chat_event` notes what Retell's webhook reports.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from channels_out import retell
from channels_out.errors import SendError
from channels_out.retell import ChatEvent
from conversations import log_context
from conversations.engines.retell import access_to_retell
from conversations.models import Conversation, EndedBy, EngineChat, Message
from conversations.queue import enqueue
from conversations.services.core.backoff import backoff
from conversations.services.core.cluster import clients_with, exists
from conversations.services.core.ledger import record
from conversations.services.core.locking import lock
from conversations.services.core.rotation import in_rotation
from conversations.services.core.sql import column
from conversations.services.engine_chats import removals
from conversations.services.engine_chats.chats import AGENT, S
from conversations.services.transitions import closing

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
ATTEMPTS = 8


def is_pending() -> bool:
    """Return whether the end or the deletion of a chat is due."""
    return exists(EngineChat.objects.filter(due_at__lte=timezone.now())) or removals.pending()


_CLIENTS = "SELECT DISTINCT client_id FROM engine_chats WHERE due_at <= $1"
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT chat_id FROM engine_chats WHERE client_id = $3 AND due_at <= $1
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE engine_chats c
    SET due_at = $2, attempts = LEAST(c.attempts + 1, 1000)
    FROM due WHERE c.client_id = $3 AND c.chat_id = due.chat_id
    RETURNING c.chat_id"""


def settle_due(seconds: float = 120) -> int:
    """End the chats of closed conversations, close conversations whose agent ended the chat, and return how many.

    seconds: how long to go on at most
    """
    done, until = 0, time.monotonic() + seconds
    for client_id, chat_id in in_rotation(_clients, _claim, until):
        chat = EngineChat.objects.select_related("conversation").get(client=client_id, pk=chat_id)
        with log_context.about(conversation=chat.conversation_id):
            done += _close_conversation(chat) if chat.conversation.is_open else _end_chat(chat)
    return done + removals.remove_due(until)


def _clients() -> list[tuple[UUID, int]]:
    return [(client_id, 1) for client_id in clients_with(_CLIENTS, timezone.now())]


def _claim(client_id: UUID) -> tuple[UUID, str] | None:
    found = column(_CLAIM, timezone.now(), timezone.now() + LEASE, client_id)
    return (client_id, found[0]) if found else None


def _end_chat(chat: EngineChat) -> bool:
    """End the chat at Retell. After ATTEMPTS failures it is left to end there by silence."""
    access = access_to_retell()
    try:
        if access and chat.status == S.ONGOING:
            retell.end_chat(access, chat.chat_id)
    except SendError as error:
        log.warning("chat not ended yet: conversation=%s code=%s", chat.conversation_id, error.code)
        if (error.retryable or error.ambiguous) and chat.attempts < ATTEMPTS:
            due_at = timezone.now() + backoff(chat.attempts, error.retry_after)
            EngineChat.objects.filter(client=chat.client_id, pk=chat.pk).update(due_at=due_at)
            return False
    EngineChat.objects.filter(client=chat.client_id, pk=chat.pk).update(due_at=None)
    EngineChat.objects.filter(client=chat.client_id, pk=chat.pk, status=S.ONGOING).update(
        status=S.ENDED, ended_at=timezone.now()
    )
    return True


def _close_conversation(chat: EngineChat) -> bool:
    """Close the conversation whose agent ended the chat, unless it goes on; later if messages are still to be sent."""
    conversation = chat.conversation
    goes_on = conversation.chat_id != chat.chat_id or conversation.reply_owed or conversation.taken_over_at
    unsent = [Message.Status.QUEUED, Message.Status.CLAIMED, Message.Status.SENDING]
    if not goes_on and Message.objects.filter(conversation=conversation, status__in=unsent).exists():
        EngineChat.objects.filter(client=chat.client_id, pk=chat.pk).update(
            due_at=timezone.now() + backoff(chat.attempts)
        )
        return False
    EngineChat.objects.filter(client=chat.client_id, pk=chat.pk).update(due_at=None)
    if not goes_on:
        now, reason = timezone.now(), gettext_noop("the Retell agent ended the chat")
        closing.close(
            conversation.pk, ended_by=EndedBy.SYSTEM, actor=AGENT, now=now, reason=reason, client=conversation.client
        )
    return not goes_on


# --- Retell's webhook ------------------------------------------------------------------------------------------------
def apply_chat_event(event: ChatEvent, now: datetime) -> bool:
    """Note on the chat what Retell's signed webhook says, and return whether the chat is one of ours.

    The same event may come several times: it is noted once. Events of Retell's phone calls name no chat.
    """
    if not event.chat.chat_id:
        return False
    ours = EngineChat.objects.filter(pk=event.chat.chat_id).values_list("client_id", "conversation_id").first()
    if ours is None:
        return False
    client_id, conversation_id = ours
    with transaction.atomic():
        conversation = lock(conversation_id, client_id)
        chat = EngineChat.objects.select_for_update().get(client=client_id, pk=event.chat.chat_id)
        if event.event == "chat_ended":
            _note_ended(conversation, chat, event, now)
        elif event.event == "chat_analyzed":
            _note_analyzed(conversation, chat, event)
    return True


def _note_ended(conversation: Conversation, chat: EngineChat, event: ChatEvent, now: datetime) -> None:
    """Note the chat's end. Where its agent ended it, the conversation ends as well.

    Where silence or an error ended it, the conversation goes on in another chat when the person writes again.
    """
    by_agent = chat.ended_by_agent or any(message.ends for message in event.chat.messages)
    if chat.ended_at is None:
        why = gettext_noop("by its agent") if by_agent else event.chat.status or "ended"
        record(conversation, "chat_ended", AGENT, cause=why, chat_id=chat.chat_id)
    chat.ended_at = chat.ended_at or now
    chat.ended_by_agent = by_agent
    if chat.status == S.ONGOING:
        chat.status = S.ENDED
    if by_agent and conversation.is_open and conversation.chat_id == chat.chat_id:
        chat.due_at, chat.attempts = now, 0
        enqueue("settle_chats")
    chat.save()


def _note_analyzed(conversation: Conversation, chat: EngineChat, event: ChatEvent) -> None:
    if chat.analysis is None:
        sentiment = str(event.analysis.get("user_sentiment") or "unknown")[:20]
        record(conversation, "chat_analyzed", AGENT, cause=f"sentiment: {sentiment}", chat_id=chat.chat_id)
    chat.analysis = dict(event.analysis)
    chat.save(update_fields=["analysis"])
