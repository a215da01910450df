"""How chats at Retell end: by us with their session, by their agent, by silence; and what Retell tells us of it."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from channels_out import retell
from channels_out.errors import SendError
from channels_out.retell import ChatEvent
from conversations.engines.retell import access_to_retell
from conversations.models import Conversation, EndedBy, EngineChat, Message
from conversations.queue import enqueue
from conversations.services.core.backoff import backoff
from conversations.services.core.ledger import record
from conversations.services.core.locking import lock
from conversations.services.core.sql import column
from conversations.services.engine_chats import removals
from conversations.services.engine_chats.chats import AGENT, S
from conversations.services.transitions import closing

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
ATTEMPTS = 8


def pending() -> bool:
    """Whether there is anything to do about a chat's end, or its deletion, by now."""
    return EngineChat.objects.filter(due_at__lte=timezone.now()).exists() or removals.pending()


_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT chat_id FROM engine_chats WHERE due_at <= $1
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE engine_chats c
    SET due_at = $2, attempts = LEAST(c.attempts + 1, 1000)
    FROM due WHERE c.chat_id = due.chat_id
    RETURNING c.chat_id"""


def settle_due(seconds: float = 120) -> int:
    """Chats of closed sessions are ended, sessions whose agent ended the chat are closed. Returns how many."""
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        chat = EngineChat.objects.select_related("conversation").get(pk=claimed[0])
        done += _close_session(chat) if chat.conversation.is_open else _end(chat)
    return done + removals.remove_due(until)


def _end(chat: EngineChat) -> bool:
    """Tell Retell; what it cannot be told for long ends there by silence."""
    access = access_to_retell()
    try:
        if access and chat.status == S.ONGOING:
            retell.end_chat(access, chat.chat_id)
    except SendError as error:
        log.warning("chat not ended yet: conversation=%s code=%s", chat.conversation_id, error.code)
        if (error.retryable or error.ambiguous) and chat.attempts < ATTEMPTS:
            due_at = timezone.now() + backoff(chat.attempts, error.retry_after)
            EngineChat.objects.filter(pk=chat.pk).update(due_at=due_at)
            return False
    EngineChat.objects.filter(pk=chat.pk).update(due_at=None)
    EngineChat.objects.filter(pk=chat.pk, status=S.ONGOING).update(status=S.ENDED, ended_at=timezone.now())
    return True


def _close_session(chat: EngineChat) -> bool:
    """The agent ended the chat: so the session ends, once its last words are out and unless the person went on."""
    conversation = chat.conversation
    went_on = conversation.chat_id != chat.chat_id or conversation.reply_owed or conversation.taken_over_at
    on_the_way = [Message.Status.QUEUED, Message.Status.CLAIMED, Message.Status.SENDING]
    if not went_on and Message.objects.filter(conversation=conversation, status__in=on_the_way).exists():
        EngineChat.objects.filter(pk=chat.pk).update(due_at=timezone.now() + backoff(chat.attempts))
        return False
    EngineChat.objects.filter(pk=chat.pk).update(due_at=None)
    if not went_on:
        now, reason = timezone.now(), "the Retell agent ended the chat"
        closing.close(conversation.pk, ended_by=EndedBy.SYSTEM, actor=AGENT, now=now, reason=reason)
    return not went_on


# --- what Retell tells us --------------------------------------------------------------------------------------------
def receive(event: ChatEvent, now: datetime) -> bool:
    """What a signed webhook says is noted, once. Returns whether the chat is one of ours."""
    found = EngineChat.objects.filter(pk=event.chat.chat_id).values_list("conversation_id", flat=True).first()
    if found is None:
        return False
    with transaction.atomic():
        conversation = lock(found)
        chat = EngineChat.objects.select_for_update().get(pk=event.chat.chat_id)
        if event.event == "chat_ended":
            _note_ended(conversation, chat, event, now)
        elif event.event == "chat_analyzed":
            _note_analyzed(conversation, chat, event)
    return True


def _note_ended(conversation: Conversation, chat: EngineChat, event: ChatEvent, now: datetime) -> None:
    """Its agent ended it: the session ends with it. Silence or an error ended it: the session goes on, in another chat
    when the person writes again."""
    by_agent = chat.ended_by_agent or any(message.ends for message in event.chat.messages)
    if chat.ended_at is None:
        why = "by its agent" if by_agent else event.chat.status or "ended"
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
