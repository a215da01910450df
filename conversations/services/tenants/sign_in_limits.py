"""How often one may try to sign in: counted on rows, for all processes and both pages together.

A try is counted before the password is looked at, so that many at the same moment are counted too; one that succeeds is
taken back. Whether there is such a user plays no part: who guesses learns nothing from being stopped.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from django.conf import settings

from conversations.services.core.errors import TooManyError
from conversations.services.core.sql import rows

STRETCH = timedelta(minutes=15)
# SIGN_IN_TRIES are those of one user name from one address; an office shares an address, and a user name is guessed at
# from many. The last is high: who reaches it keeps the user out as well.
FROM_AN_ADDRESS = 10
OF_A_NAME = 20

_COUNT = """
    INSERT INTO sign_in_tries (who, count, until) VALUES ($1, 1, $3)
    ON CONFLICT (who) DO UPDATE SET
        count = CASE WHEN sign_in_tries.until <= $2 THEN 1 ELSE sign_in_tries.count + 1 END,
        until = CASE WHEN sign_in_tries.until <= $2 THEN EXCLUDED.until ELSE sign_in_tries.until END
    RETURNING count, until"""
_TAKE_BACK = """
    UPDATE sign_in_tries SET count = CASE WHEN who = $1 THEN 0 ELSE GREATEST(count - 1, 0) END
    WHERE who = ANY($2) RETURNING who"""


def count(name: str, address: str, now: datetime) -> None:
    """One more try for the user name from the address. Raises TooManyError where that is more than there may be."""
    for who, most in _limits(name, address):
        if not most:
            return
        [(tries, until)] = rows(_COUNT, who, now, now + STRETCH)
        if tries > most:
            seconds = max(1, math.ceil((until - now).total_seconds()))
            raise TooManyError("Too many tries to sign in.", retry_after=seconds, code="too_many_sign_ins")


def succeeded(name: str, address: str) -> None:
    """The try was none of a stranger's: what the user mistyped before is forgotten."""
    whos = [who for who, _ in _limits(name, address)]
    rows(_TAKE_BACK, whos[-1], whos)


def forget(now: datetime) -> None:
    """What says nothing any more is gone."""
    rows("DELETE FROM sign_in_tries WHERE until <= $1 RETURNING who", now)


def _limits(name: str, address: str) -> list[tuple[bytes, int]]:
    """Who is counted, and how often they may try; the address first, so that one that is over its limit fills no more
    rows with names."""
    name = unicodedata.normalize("NFKC", name).casefold().strip()[:150]
    place, tries = _place(address), settings.SIGN_IN_TRIES
    return [
        (_hash("address", place), tries * FROM_AN_ADDRESS),
        (_hash("name", name), tries * OF_A_NAME),
        (_hash("pair", name, place), tries),
    ]


def _place(address: str) -> str:
    """The address; of IPv6 the network, of which one customer has all addresses (RFC 6177)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped) if found.ipv4_mapped else str(IPv6Address(int(found) >> 64 << 64))
    return str(found)


def _hash(*parts: str) -> bytes:
    key = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), key=key, digest_size=16).digest()
