"""Second factors: who needs one, whether a session has shown one, and what limits guesses.

allauth keeps them (`allauth.mfa`): an authenticator app, passkeys, and recovery codes, which come with either.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.utils.translation import gettext

from conversations.models import Client
from conversations.services.core.errors import TooManyError
from conversations.services.core.sql import rows
from conversations.services.tenants import sign_in_limits

CODES_LAST = timedelta(minutes=5)  # longer than a code of an authenticator app is accepted

# A recovery code alone is no factor: it replaces one that was lost.
_STATE = """
    SELECT (SELECT min(a.created_at) FROM mfa_authenticator a WHERE a.user_id = $1 AND a.type <> 'recovery_codes'),
        EXISTS (
            SELECT 1 FROM clients c WHERE c.requires_second_factor AND c.is_active
            AND ($2 OR EXISTS (SELECT 1 FROM memberships m WHERE m.client_id = c.id AND m.user_id = $1))
        )"""


class Standing(Enum):
    """A signed-in session as regards the second factor."""

    COMPLETE = "complete"  # shown, or neither set up nor required
    TO_CONFIRM = "to_confirm"  # set up, and not yet shown in this session
    TO_SET_UP = "to_set_up"  # required, and not set up


def standing(user: Any, shown_at: datetime | None) -> Standing:
    """Return the standing of a session of the user. Superusers belong to every client.

    shown_at: the time at which the session last showed a second factor; one from before the oldest of the present
        factors was that of a factor which somebody removed
    """
    [(set_up_at, is_required)] = rows(_STATE, user.pk, bool(user.is_superuser))
    if set_up_at is None:
        return Standing.TO_SET_UP if is_required else Standing.COMPLETE
    return Standing.COMPLETE if shown_at and shown_at >= set_up_at else Standing.TO_CONFIRM


def is_required_of(user: Any) -> bool:
    """Return whether a client of the user requires a second factor."""
    [(_, is_required)] = rows(_STATE, user.pk, bool(user.is_superuser))
    return bool(is_required)


def require(client: Client, *, required: bool) -> None:
    """Set whether the client requires a second factor. It holds from the next request of each session on."""
    client.requires_second_factor = required
    client.save(update_fields=["requires_second_factor"])


def remove(user: Any) -> int:
    """Delete the user's second factors with the recovery codes, and return how many there were.

    Sessions that showed one of them have to show a new one.
    """
    removed: int = Authenticator.objects.filter(user=user).delete()[0]
    return removed


def count_attempt(user_id: int, now: datetime) -> None:
    """Count an attempt to show a second factor, from wherever. Raises TooManyError above SIGN_IN_TRIES."""
    most = settings.SIGN_IN_TRIES
    if most and (seconds := sign_in_limits.count(_counter(user_id), most, sign_in_limits.PERIOD, now)):
        raise TooManyError(gettext("Too many attempts."), retry_after=seconds, code="too_many_sign_ins")


def forget_attempts(user_id: int) -> None:
    """Forget the failed attempts of a user who has shown a second factor."""
    sign_in_limits.forget(_counter(user_id))


def use_once(user_id: int, code: str, now: datetime) -> bool:
    """Note that the user used the code of the authenticator app, and return False if that was done before.

    It is noted in a row, since the cache may be each process's own.
    """
    digits = "".join(each for each in code if each.isdigit())
    return not sign_in_limits.count(sign_in_limits.counter("code", str(user_id), digits), 1, CODES_LAST, now)


def _counter(user_id: int) -> bytes:
    return sign_in_limits.counter("second factor", str(user_id))
