"""Quotas: how many messages the programs of a client may pass on in a minute, counted in each process.

Nothing is asked of the database for it: the limits are read in the background, when the use of a key is noted
(api_keys.note_use). Only what was stored is counted, and only a key that has stored something of the client is refused,
so that a stranger who names the client neither uses its quota up nor learns anything.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from uuid import UUID

from conversations.services.core.errors import TooManyError

MINUTE = 60
MOST = 10_000  # keys that are remembered

_guard = threading.Lock()
_clients: dict[bytes, UUID] = {}  # by the key's hash
_limits: dict[UUID, int] = {}
_counts: Counter[UUID] = Counter()  # of this minute
_minute = 0


def learn(client_id: UUID, limit: int) -> None:
    """Remember how many messages a minute the client may pass on."""
    with _guard:
        if len(_limits) >= MOST:
            _limits.clear()
        _limits[client_id] = limit


def check(key_hash: bytes, client_id: UUID) -> None:
    """Raise TooManyError if the client has used its quota of this minute up. The message is not counted yet."""
    with _guard:
        _begin_minute()
        limit = _limits.get(client_id)
        if limit is None or _counts[client_id] < limit or _clients.get(key_hash) != client_id:
            return
    wait = MINUTE - int(time.time()) % MINUTE
    raise TooManyError(f"This client passes on more than {limit:,} messages a minute.", retry_after=wait)


def count(key_hash: bytes, client_id: UUID) -> None:
    """Count a message of the client that was stored with its key."""
    with _guard:
        _begin_minute()
        if len(_clients) >= MOST:
            _clients.clear()
        _clients[key_hash] = client_id
        _counts[client_id] += 1


def _begin_minute() -> None:
    global _minute
    if (now := int(time.time() // MINUTE)) != _minute:
        _minute = now
        _counts.clear()
