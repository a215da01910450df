"""Limits of sign-in attempts, counted in rows for all processes and for both sign-in pages together.

Other attempts that cost something are counted in the same rows (`count`).

An attempt is counted before the password is checked, so that simultaneous attempts count as well; a successful one is
taken back. Unknown user names are counted like known ones, so that a refusal does not tell whether a user exists.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.utils.translation import gettext

from conversations.services.core.errors import TooManyError
from conversations.services.core.sql import rows

PERIOD = timedelta(minutes=15)
# SIGN_IN_TRIES limits the attempts of one user name from one address. An office shares an address, and attackers guess
# one user name from many addresses, so these limits are multiples of it. The second is high, because an attacker who
# reaches it locks the user out as well.
ADDRESS_FACTOR = 10
NAME_FACTOR = 20

_COUNT = """
    INSERT INTO sign_in_tries (who, count, until) VALUES ($1, 1, $3)
    ON CONFLICT (who) DO UPDATE SET
        count = CASE WHEN sign_in_tries.until <= $2 THEN 1 ELSE sign_in_tries.count + 1 END,
        until = CASE WHEN sign_in_tries.until <= $2 THEN EXCLUDED.until ELSE sign_in_tries.until END
    RETURNING count, until"""
_TAKE_BACK = """
    UPDATE sign_in_tries SET count = CASE WHEN who = $1 THEN 0 ELSE GREATEST(count - 1, 0) END
    WHERE who = ANY($2) RETURNING who"""


def count_attempt(name: str, address: str, now: datetime) -> None:
    """Count one attempt for the user name from the IP address. Raises TooManyError above a limit."""
    for who, most in _limits(name, address):
        if not most:
            return
        if seconds := count(who, most, PERIOD, now):
            raise TooManyError(gettext("Too many attempts to sign in."), retry_after=seconds, code="too_many_sign_ins")


def count(who: bytes, most: int, period: timedelta, now: datetime) -> int:
    """Count one attempt at anything, and return the seconds to wait where there were more than `most`, else 0.

    who: see `counter`; the period begins with its first attempt
    """
    [(tries, until)] = rows(_COUNT, who, now, now + period)
    return max(1, math.ceil((until - now).total_seconds())) if tries > most else 0


def forget(who: bytes) -> None:
    """Delete the attempts that were counted for `who`."""
    rows("DELETE FROM sign_in_tries WHERE who = $1 RETURNING who", who)


def counter(*parts: str) -> bytes:
    """Return the `who` of these parts, the first of which names what is counted."""
    key = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), key=key, digest_size=16).digest()


def record_success(name: str, address: str) -> None:
    """Take the successful attempt back, and forget the failed ones of this user name from this address."""
    whos = [who for who, _ in _limits(name, address)]
    rows(_TAKE_BACK, whos[-1], whos)


def delete_expired(now: datetime) -> None:
    """Delete the counts whose period is over."""
    rows("DELETE FROM sign_in_tries WHERE until <= $1 RETURNING who", now)


def _limits(name: str, address: str) -> list[tuple[bytes, int]]:
    """Return the counters of the attempt with their limits.

    The address comes first, so that an address above its limit creates no more rows for names.
    """
    name = unicodedata.normalize("NFKC", name).casefold().strip()[:150]
    network, tries = _network(address), settings.SIGN_IN_TRIES
    return [
        (counter("address", network), tries * ADDRESS_FACTOR),
        (counter("name", name), tries * NAME_FACTOR),
        (counter("pair", name, network), tries),
    ]


def _network(address: str) -> str:
    """Return the address; of IPv6 the /64 network, because one customer has all its addresses (RFC 6177)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped) if found.ipv4_mapped else str(IPv6Address(int(found) >> 64 << 64))
    return str(found)
