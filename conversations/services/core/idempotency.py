"""Idempotency keys: a repeated POST is done once and gets the first answer again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

from conversations.models import Client, Conversation, IdempotencyKey
from conversations.services.core.cluster import for_each_with
from conversations.services.core.errors import ConflictError
from conversations.services.core.json import dumps
from conversations.services.core.sql import row, rows

KEPT_FOR = timedelta(hours=24)

# A key that has expired by now ($4) counts as unused, though its row may not be deleted yet.
_CLAIM = """
    INSERT INTO idempotency_keys AS k (client_id, key, fingerprint, status, answer, expires_at)
    VALUES ($1, $2, $3, 0, '', $5)
    ON CONFLICT (client_id, key) DO UPDATE
    SET fingerprint = EXCLUDED.fingerprint, status = 0, answer = '', conversation_id = NULL,
        expires_at = EXCLUDED.expires_at
    WHERE k.expires_at <= $4
    RETURNING k.id"""

_CLIENTS_WITH_EXPIRED = "SELECT DISTINCT client_id FROM idempotency_keys WHERE expires_at <= $1"
_TRIM = """
    DELETE FROM idempotency_keys k
    USING (SELECT id FROM idempotency_keys WHERE client_id = $2 AND expires_at <= $1 FOR UPDATE SKIP LOCKED) over
    WHERE k.client_id = $2 AND k.id = over.id
    RETURNING k.id"""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The answer to a POST: an HTTP status, an object for JSON, and the conversation that it is about, if any."""

    status: int
    data: Any
    conversation_id: UUID | None = None


class RefusedError(Exception):
    """Raised by the work of a POST to undo what it did and keep `answer`, a refusal that a retry would not change."""

    def __init__(self, answer: StoredResponse) -> None:
        super().__init__(answer.status)
        self.answer = answer


def run_once(
    client: Client, key: str, fingerprint: bytes, act: Callable[[], StoredResponse], now: datetime
) -> tuple[StoredResponse, bool]:
    """Do the work and keep its answer for 24 hours, or return the answer that the client's key got before.

    Returns the answer, and True if it is an earlier one. The key, the work and the answer are committed together, so a
    crash leaves none of them. Of two simultaneous requests the second waits for the first.

    fingerprint: hash of the request, by which a reused key is recognised
    act: does the work; it may raise RefusedError, whose answer is kept too; any other error leaves the key unused

    Raises ConflictError (`idempotency_key_reused`) if the key came with another request before.
    """
    with transaction.atomic():
        while not (claimed := row(_CLAIM, client.pk, key, fingerprint, now, now + KEPT_FOR)):
            kept = IdempotencyKey.objects.filter(client=client, key=key).first()
            if kept:
                return _again(kept, fingerprint), True
        try:
            with transaction.atomic():
                answer = act()
        except RefusedError as refused:
            answer = refused.answer
        IdempotencyKey.objects.filter(client=client, pk=claimed[0]).update(
            status=answer.status,
            answer=dumps(answer.data).decode(),
            conversation=_conversation(client, answer),
        )
    return answer, False


def _again(kept: IdempotencyKey, fingerprint: bytes) -> StoredResponse:
    if bytes(kept.fingerprint) != fingerprint:
        raise ConflictError(
            "This Idempotency-Key was used for another request. Send a new request with a new key.",
            code="idempotency_key_reused",
        )
    return StoredResponse(kept.status, orjson.loads(kept.answer), kept.conversation_id)


def _conversation(client: Client, answer: StoredResponse) -> Conversation | None:
    if answer.conversation_id is None:
        return None
    return Conversation.objects.of(client).filter(pk=answer.conversation_id).only("pk").first()


def delete_expired(now: datetime) -> int:
    """Delete the expired keys with their answers and return how many there were."""
    return sum(for_each_with(_CLIENTS_WITH_EXPIRED, [now], lambda client_id: len(rows(_TRIM, now, client_id))))


def change_text(conversation: Conversation, change: Callable[[str], str]) -> None:
    """Apply `change` to every text in the stored answers about the conversation, so that no redacted text returns."""
    for kept in IdempotencyKey.objects.filter(conversation=conversation):
        changed = dumps(_changed(orjson.loads(kept.answer), change)).decode()
        if changed != kept.answer:
            IdempotencyKey.objects.filter(client=kept.client_id, pk=kept.pk).update(answer=changed)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _changed(each, change) for name, each in value.items()}
    return [_changed(each, change) for each in value] if isinstance(value, list) else value
