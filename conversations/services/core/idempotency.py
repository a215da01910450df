"""The same POST again is answered as the first time, and done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

from conversations.models import Client, Conversation, IdempotencyKey
from conversations.services.core.errors import ConflictError
from conversations.services.core.json import dumps
from conversations.services.core.sql import row, rows

KEPT_FOR = timedelta(hours=24)

# What is over by now ($4) is as good as gone, though it may not be trimmed yet.
_CLAIM = """
    INSERT INTO idempotency_keys AS k (client_id, key, fingerprint, status, answer, expires_at)
    VALUES ($1, $2, $3, 0, '', $5)
    ON CONFLICT (client_id, key) DO UPDATE
    SET fingerprint = EXCLUDED.fingerprint, status = 0, answer = '', conversation_id = NULL,
        expires_at = EXCLUDED.expires_at
    WHERE k.expires_at <= $4
    RETURNING k.id"""

_TRIM = """
    DELETE FROM idempotency_keys k
    USING (SELECT id FROM idempotency_keys WHERE expires_at <= $1 FOR UPDATE SKIP LOCKED) over
    WHERE k.id = over.id
    RETURNING k.id"""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What a POST is answered: an HTTP status and an object for JSON. `conversation_id`: the session it tells of."""

    status: int
    data: Any
    conversation_id: UUID | None = None


class RefusedError(Exception):
    """What was asked cannot be done, and will not be by asking again: nothing of it stays but this answer."""

    def __init__(self, answer: StoredResponse) -> None:
        super().__init__(answer.status)
        self.answer = answer


def once(
    client: Client, key: str, fingerprint: bytes, act: Callable[[], StoredResponse], now: datetime
) -> tuple[StoredResponse, bool]:
    """Do it and keep its answer for 24 hours; or, where the client has sent the key before, give that answer.

    Returns the answer and whether it is the first one again. The key, what `act` does and its answer are committed
    together: a crash leaves none of them. Of two requests at once the second waits for the first. `act` may raise
    RefusedError, whose answer is kept too; whatever else it raises leaves the key free to be tried again.
    Raises ConflictError (`idempotency_key_reused`) if the key came with something else before.
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
        IdempotencyKey.objects.filter(pk=claimed[0]).update(
            status=answer.status,
            answer=dumps(answer.data).decode(),
            conversation=_conversation(client, answer),
        )
    return answer, False


def _again(kept: IdempotencyKey, fingerprint: bytes) -> StoredResponse:
    if bytes(kept.fingerprint) != fingerprint:
        raise ConflictError(
            "This Idempotency-Key came with another request before: a new request needs a new key.",
            code="idempotency_key_reused",
        )
    return StoredResponse(kept.status, orjson.loads(kept.answer), kept.conversation_id)


def _conversation(client: Client, answer: StoredResponse) -> Conversation | None:
    if answer.conversation_id is None:
        return None
    return Conversation.objects.of(client).filter(pk=answer.conversation_id).only("pk").first()


def trim(now: datetime) -> int:
    """Answers that are over are gone. Returns how many were."""
    return len(rows(_TRIM, now))


def change_text(conversation: Conversation, change: Callable[[str], str]) -> None:
    """Every text in the answers that tell of the session is what `change` makes of it: what was redacted is not to
    come back."""
    for kept in IdempotencyKey.objects.filter(conversation=conversation):
        changed = dumps(_changed(orjson.loads(kept.answer), change)).decode()
        if changed != kept.answer:
            IdempotencyKey.objects.filter(pk=kept.pk).update(answer=changed)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _changed(each, change) for name, each in value.items()}
    return [_changed(each, change) for each in value] if isinstance(value, list) else value
