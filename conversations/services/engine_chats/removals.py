"""Chats at Retell whose session is deleted: they are ended and deleted there, and Retell is asked if they are gone.

Which chats these are is written where their session is deleted, in its transaction.
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


def ask_for(chat_ids: Iterable[str], erasure: Erasure | None = None) -> None:
    """The chats are to be deleted at Retell."""
    EngineChatRemoval.objects.bulk_create(
        [EngineChatRemoval(chat_id=chat_id, erasure=erasure, due_at=timezone.now()) for chat_id in chat_ids],
        update_conflicts=True,
        unique_fields=["chat_id"],
        update_fields=["erasure"],
    )


def chats_of(conversation_ids: Iterable[UUID]) -> list[str]:
    """The chats that the sessions ever had."""
    chats = EngineChat.objects.filter(conversation__in=list(conversation_ids))
    return list(chats.order_by("chat_id").values_list("chat_id", flat=True))


def pending() -> bool:
    """Whether any is due to be deleted by now."""
    return EngineChatRemoval.objects.filter(removed_at__isnull=True, due_at__lte=timezone.now()).exists()


def remove_due(until: float) -> int:
    """What is due is deleted at Retell, chat after chat, until then (of `time.monotonic`). Returns how many were."""
    done = 0
    while time.monotonic() < until and (claimed := column(_CLAIM, timezone.now(), timezone.now() + LEASE)):
        done += not _remove(claimed[0])
    return done


def remove_of(erasure: Erasure) -> str:
    """The chats of the erasure are deleted at Retell. Returns the code of why one is not, '' where all are."""
    waiting = EngineChatRemoval.objects.filter(erasure=erasure, removed_at__isnull=True)
    codes = [_remove(chat_id) for chat_id in waiting.values_list("chat_id", flat=True)]
    return next((code for code in codes if code), "")


def _remove(chat_id: str) -> str:
    """Returns why it is not deleted yet, '' where it is. Deleting one that is gone does nothing."""
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
        retell.end_chat(access, chat_id)  # one that goes on could be written to
        retell.delete_chat(access, chat_id)
        return "still_there" if retell.get_chat(access, chat_id) else ""
    except SendError as error:
        return error.code
