"""Removals: end and delete the chats at Retell whose conversation was deleted, and ask Retell whether they are gone.

The transaction that deletes the conversation writes which chats these are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from channels_out import retell
from channels_out.errors import SendError
from conversations.engines.retell import access_to_retell
from conversations.models import EngineChat, EngineChatRemoval, Erasure
from conversations.services.core.backoff import backoff
from conversations.services.core.sql import column

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)

_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT chat_id FROM engine_chat_removals WHERE removed_at IS NULL AND due_at <= $1
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE engine_chat_removals c
    SET due_at = $2, attempts = LEAST(c.attempts + 1, 1000)
    FROM due WHERE c.chat_id = due.chat_id
    RETURNING c.chat_id"""


def request_removal(chat_ids: Iterable[str], erasure: Erasure | None = None) -> None:
    """Request the deletion of the chats at Retell. `erasure`: the erasure that waits for it."""
    EngineChatRemoval.objects.bulk_create(
        [EngineChatRemoval(chat_id=chat_id, erasure=erasure, due_at=timezone.now()) for chat_id in chat_ids],
        update_conflicts=True,
        unique_fields=["chat_id"],
        update_fields=["erasure"],
    )


def chat_ids_of(conversation_ids: Iterable[UUID]) -> list[str]:
    """Return the ids of all chats that the conversations ever had."""
    chats = EngineChat.objects.filter(conversation__in=list(conversation_ids))
    return list(chats.order_by("chat_id").values_list("chat_id", flat=True))


def pending() -> bool:
    """Return whether the deletion of a chat is due."""
    return EngineChatRemoval.objects.filter(removed_at__isnull=True, due_at__lte=timezone.now()).exists()


def remove_due(until: float) -> int:
    """Delete the due chats at Retell, one after the other, and return how many were deleted.

    until: when to stop, in seconds of `time.monotonic`
    """
    done = 0
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        done += not _remove(claimed[0])
    return done


def remove_chats_of(erasure: Erasure) -> str:
    """Delete the erasure's chats at Retell. Returns the code of the first error, '' if all are deleted."""
    waiting = EngineChatRemoval.objects.filter(erasure=erasure, removed_at__isnull=True)
    codes = [_remove(chat_id) for chat_id in waiting.values_list("chat_id", flat=True)]
    return next((code for code in codes if code), "")


def _remove(chat_id: str) -> str:
    """Delete the chat at Retell. Returns the code of the error, '' if it is gone. It is safe to repeat."""
    removal = EngineChatRemoval.objects.filter(pk=chat_id).first()
    if removal is None:
        return ""
    if code := _delete(chat_id):
        due_at = timezone.now() + backoff(removal.attempts or 1)
        EngineChatRemoval.objects.filter(pk=chat_id).update(error=code[:40], due_at=due_at)
        log.warning("chat not deleted yet: code=%s", code)
    elif removal.erasure_id:
        EngineChatRemoval.objects.filter(pk=chat_id).update(error="", removed_at=timezone.now())
    else:
        removal.delete()
    return code


def _delete(chat_id: str) -> str:
    access = access_to_retell()
    if access is None:
        return "not_configured"
    try:
        retell.end_chat(access, chat_id)  # an open chat could still receive messages
        retell.delete_chat(access, chat_id)
        return "still_there" if retell.get_chat(access, chat_id) else ""
    except SendError as error:
        return error.code
