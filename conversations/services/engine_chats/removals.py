"""Removals: end and delete the chats at Retell whose conversation was deleted, and ask Retell whether they are gone.

The transaction that deletes the conversation writes which chats these are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from channels_out import retell
from channels_out.errors import SendError
from conversations.engines.retell import access_to_retell
from conversations.models import EngineChat, EngineChatRemoval, Erasure
from conversations.services.core.backoff import backoff
from conversations.services.core.cluster import clients_with, exists
from conversations.services.core.rotation import in_rotation
from conversations.services.core.sql import row

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)

_CLIENTS = "SELECT DISTINCT client_id FROM engine_chat_removals WHERE removed_at IS NULL AND due_at <= $1"
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT chat_id FROM engine_chat_removals WHERE client_id = $3 AND removed_at IS NULL AND due_at <= $1
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE engine_chat_removals c
    SET due_at = $2, attempts = LEAST(c.attempts + 1, 1000)
    FROM due WHERE c.client_id = $3 AND c.chat_id = due.chat_id
    RETURNING c.client_id, c.chat_id"""


def request_removal(client_id: UUID, chat_ids: Iterable[str], erasure: Erasure | None = None) -> None:
    """Request the deletion of the chats at Retell. `erasure`: the erasure that waits for it."""
    EngineChatRemoval.objects.bulk_create(
        [
            EngineChatRemoval(client_id=client_id, chat_id=chat_id, erasure=erasure, due_at=timezone.now())
            for chat_id in chat_ids
        ],
        update_conflicts=True,
        unique_fields=["client_id", "chat_id"],
        update_fields=["erasure"],
    )


def request_removal_once(client_id: UUID, chat_ids: Iterable[str], now: datetime) -> None:
    """Request the deletion of those chats at Retell that is not requested yet."""
    asked = [EngineChatRemoval(client_id=client_id, chat_id=chat_id, due_at=now) for chat_id in chat_ids]
    EngineChatRemoval.objects.bulk_create(asked, ignore_conflicts=True)


def chat_ids_of(client_id: UUID, conversation_ids: Iterable[UUID]) -> list[str]:
    """Return the ids of all chats that the conversations ever had."""
    chats = EngineChat.objects.filter(client=client_id, conversation__in=list(conversation_ids))
    return list(chats.order_by("chat_id").values_list("chat_id", flat=True))


def pending() -> bool:
    """Return whether the deletion of a chat is due."""
    return exists(EngineChatRemoval.objects.filter(removed_at__isnull=True, due_at__lte=timezone.now()))


def remove_due(until: float) -> int:
    """Delete the due chats at Retell, one after the other, and return how many were deleted.

    until: when to stop, in seconds of `time.monotonic`
    """
    done = 0
    for claimed in in_rotation(_clients, _claim, until):
        done += not _remove(*claimed)
    return done


def _clients() -> list[tuple[UUID, int]]:
    return [(client_id, 1) for client_id in clients_with(_CLIENTS, timezone.now())]


def _claim(client_id: UUID) -> tuple[UUID, str] | None:
    found = row(_CLAIM, timezone.now(), timezone.now() + LEASE, client_id)
    return (found[0], found[1]) if found else None


def remove_chats_of(erasure: Erasure) -> str:
    """Delete the erasure's chats at Retell. Returns the code of the first error, '' if all are deleted."""
    waiting = EngineChatRemoval.objects.filter(erasure=erasure, removed_at__isnull=True)
    codes = [_remove(erasure.client_id, chat_id) for chat_id in waiting.values_list("chat_id", flat=True)]
    return next((code for code in codes if code), "")


def _remove(client_id: UUID, chat_id: str) -> str:
    """Delete the chat at Retell. Returns the code of the error, '' if it is gone. It is safe to repeat."""
    ours = EngineChatRemoval.objects.filter(client=client_id, pk=chat_id)
    removal = ours.first()
    if removal is None:
        return ""
    if code := _delete(chat_id):
        due_at = timezone.now() + backoff(removal.attempts or 1)
        ours.update(error=code[:40], due_at=due_at)
        log.warning("chat not deleted yet: code=%s", code)
    elif removal.erasure_id:
        ours.update(error="", removed_at=timezone.now())
    else:
        ours.delete()
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
