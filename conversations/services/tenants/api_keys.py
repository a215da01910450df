"""API keys, with which programs act for a client."""

from __future__ import annotations

import hashlib
import secrets
import time

from django.utils import timezone

from conversations.models import ApiKey, Client
from conversations.services.core.errors import InvalidError
from conversations.services.core.sql import PreparedSelect
from conversations.services.core.statements import THIS_THREAD, Statements

KEY_PREFIX = "convo_"
LONGEST_NAME = 100
_TOUCH_EVERY_SECONDS = 60
_touched: dict[int, float] = {}

_BY_HASH = PreparedSelect(
    """SELECT {k}, {c} FROM api_keys k JOIN clients c ON c.id = k.client_id
    WHERE k.key_hash = $1 AND k.revoked_at IS NULL AND c.is_active""",
    k=ApiKey,
    c=Client,
)


def create_api_key(client: Client, name: str = "key") -> tuple[ApiKey, str]:
    """Create an API key of the client. Returns its row and the key, which is not stored: show it now, once.

    Raises InvalidError if the name is longer than LONGEST_NAME.
    """
    if len(name) > LONGEST_NAME:
        raise InvalidError(f"name: Use at most {LONGEST_NAME} characters.")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    row = ApiKey.objects.create(client=client, name=name, prefix=key[:12], key_hash=key_hash(key))
    return row, key


def revoke(key_id: int) -> bool:
    """Revoke the key and return whether it was valid until now."""
    return bool(ApiKey.objects.filter(pk=key_id, revoked_at__isnull=True).update(revoked_at=timezone.now()))


def key_hash(key: str) -> bytes:
    """Return the SHA-256 of the key, which is all that is stored of it.

    No salt and one round suffice: a key has 256 random bits, so nobody guesses it from its hash.
    """
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def find_api_key(key: str) -> ApiKey | None:
    """Return the key's row with its client, or None if the key is unknown or revoked, or its client is inactive."""
    found = _BY_HASH.first(key_hash(key))
    if not found:
        return None
    row: ApiKey = found[0]
    row.client = found[1]
    note_use(row.pk)
    return row


def note_use(key_id: int, statements: Statements = THIS_THREAD) -> None:
    """Set the key's `last_used_at`, at most once a minute in each process."""
    now = time.monotonic()
    if now - _touched.get(key_id, -_TOUCH_EVERY_SECONDS) >= _TOUCH_EVERY_SECONDS:
        _touched[key_id] = now
        statements.soon(_write_use, key_id)


def _write_use(key_id: int) -> None:
    ApiKey.objects.filter(pk=key_id).update(last_used_at=timezone.now())
