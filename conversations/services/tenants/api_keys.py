"""API keys, with which programs act for a client."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext

from conversations.models import ApiKey, Client, Conversation, Scope
from conversations.models.client import usual_scopes
from conversations.services.core import key_sql
from conversations.services.core.cluster import is_cluster, of_each, rows_over_all
from conversations.services.core.errors import ForbiddenError, InvalidError
from conversations.services.core.sql import PreparedSelect, rows
from conversations.services.core.statements import THIS_THREAD, Statements
from conversations.services.tenants import quotas

KEY_PREFIX = "convo_"
LONGEST_NAME = 100
_TOUCH_EVERY_SECONDS = 60
_touched: dict[int, float] = {}

_BY_HASH = PreparedSelect(
    "SELECT {k}, {c} FROM api_keys k JOIN clients c ON c.id = k.client_id"
    f" WHERE k.key_hash = $1 AND {key_sql.IS_VALID} AND c.is_active",
    k=ApiKey,
    c=Client,
)
_NOTE = """
    UPDATE api_keys k SET last_used_at = $2 FROM clients c WHERE k.id = $1 AND c.id = k.client_id
    RETURNING c.id, c.messages_per_minute"""

_QUOTA = "SELECT c.id, c.messages_per_minute FROM api_keys k JOIN clients c ON c.id = k.client_id WHERE k.id = $1"
_NOTE_IN_CLUSTER = """
    INSERT INTO api_key_uses (client_id, key_id, last_used_at) VALUES ($1, $2, $3)
    ON CONFLICT (client_id, key_id) DO UPDATE SET last_used_at = EXCLUDED.last_used_at
    RETURNING key_id"""
_USES = "SELECT u.key_id, u.last_used_at FROM api_key_uses u WHERE {only:u} AND u.last_used_at > $1"
_TAKE_OVER = """
    UPDATE api_keys k SET last_used_at = u.at FROM unnest($1::bigint[], $2::timestamptz[]) AS u (id, at)
    WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
    RETURNING k.id"""
_TAKEN_OVER = timedelta(hours=1)


def create_api_key(
    client: Client, name: str = "key", *, scopes: Sequence[str] | None = None, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Create an API key of the client. Returns its row and the key, which is not stored: show it now, once.

    scopes: what the key may do; None for USUAL_SCOPES. expires_at: the end of the key; None for no end

    Raises InvalidError if the name is longer than LONGEST_NAME, a scope unknown, none given, or the end in the past.
    """
    if len(name) > LONGEST_NAME:
        raise InvalidError(gettext("name: Use at most %(most)s characters.") % {"most": LONGEST_NAME})
    wanted = usual_scopes() if scopes is None else list(dict.fromkeys(scopes))
    if not wanted or not set(wanted) <= set(Scope.values):
        raise InvalidError(gettext("scopes: Use one or more of %(scopes)s.") % {"scopes": ", ".join(Scope.values)})
    if expires_at and expires_at <= timezone.now():
        raise InvalidError(gettext("expires_at: Use a time in the future."))
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    row = ApiKey.objects.create(
        client=client, name=name, prefix=key[:12], key_hash=key_hash(key), scopes=wanted, expires_at=expires_at
    )
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
    """Return the key's row with its client; None if the key is unknown, revoked or expired, or its client inactive."""
    found = _BY_HASH.first(key_hash(key))
    if not found:
        return None
    row: ApiKey = found[0]
    row.client = found[1]
    note_use(row.pk)
    return row


def require_scope(key: ApiKey, scope: str) -> None:
    """Raise ForbiddenError `missing_scope`, whose sentence and details name the scope, unless the key has it."""
    if not key.allows(scope):
        sentence = f"This API key does not have the scope {scope}. Make a key that has it."
        raise ForbiddenError(sentence, code="missing_scope", details={"scope": scope})


def require_sight(key: ApiKey, conversation_id: UUID) -> None:
    """Raise ForbiddenError `missing_scope` if the conversation is private, and the key does not have that scope.

    A conversation that is not there, or another client's, is left to the caller.
    """
    if not key.allows(Scope.PRIVATE_READ):
        private = Conversation.objects.of(key.client_id).private().filter(pk=conversation_id)
        if private.exists():
            require_scope(key, Scope.PRIVATE_READ)


def note_use(key_id: int, statements: Statements = THIS_THREAD) -> None:
    """Set the key's `last_used_at` and read its client's quota, at most once a minute in each process."""
    now = time.monotonic()
    if now - _touched.get(key_id, -_TOUCH_EVERY_SECONDS) >= _TOUCH_EVERY_SECONDS:
        _touched[key_id] = now
        statements.soon(_write_use, key_id)


def _write_use(key_id: int) -> None:
    if not is_cluster():
        for client_id, limit in rows(_NOTE, key_id, timezone.now()):
            quotas.learn(client_id, limit)
        return
    for client_id, limit in rows(_QUOTA, key_id):
        quotas.learn(client_id, limit)
        rows(_NOTE_IN_CLUSTER, client_id, key_id, timezone.now())


def take_over_uses(now: datetime) -> int:
    """Set `last_used_at` of the keys that were used in a cluster lately, and return how many.

    Nothing is set while a server is away, since each has all keys.
    """
    if not is_cluster():
        return 0
    used = rows_over_all(_USES, now - _TAKEN_OVER)
    ids, times = [pk for pk, _ in used], [at for _, at in used]
    return sum(len(found) for found in of_each([(_TAKE_OVER, ids, times)], rows)) if used else 0
