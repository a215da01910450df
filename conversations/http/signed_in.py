"""Decides for each request whether its session counts as signed in.

A session that lacks a second factor which it needs is nobody's, for every page and route, but for the pages where the
factor is set up or shown (ACCOUNT). So no page has to ask for it, and none can forget to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import get_user
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.http import urlencode

from conversations.services.tenants import second_factor
from conversations.services.tenants.second_factor import Standing

ACCOUNT = "/admin/account/"
SHOWN = "second_factor"  # in the session: the user's id, and when they last showed a second factor
SEEN = "seen_at"  # in the session: when the user last did something
SIGNED_IN = "signed_in_at"  # in the session: when the user signed in
NOTED_EVERY = timedelta(minutes=1)
# The last parts of addresses that pages ask for by themselves.
AUTOMATIC = {"list", "live", "news", "presence", "seen"}
# The pages that a session may have which has not shown its second factor, or has none yet, by the route's name.
OPEN_TO = {
    Standing.TO_CONFIRM: {"mfa_reauthenticate", "mfa_reauthenticate_webauthn", "account_logout", "account_login"},
    Standing.TO_SET_UP: {
        *("mfa_index", "mfa_activate_totp", "mfa_add_webauthn"),
        *("account_reauthenticate", "account_logout", "account_login"),
    },
}
GO_TO = {Standing.TO_CONFIRM: "mfa_reauthenticate", Standing.TO_SET_UP: "mfa_index"}


class SignedInMiddleware:
    """Replaces the user of a session that has been idle for too long, or lacks its second factor, by nobody.

    Stands behind Django's AuthenticationMiddleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Return the response, for a request whose user is looked up when somebody asks for it."""
        request.user = SimpleLazyObject(partial(_admitted, request))  # type: ignore[assignment]
        request.auser = partial(_admitted_later, request)
        return self._get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> HttpResponseBase | None:
        """Return a redirect to the page that the session needs, from any other of the account's pages."""
        if not request.path_info.startswith(ACCOUNT) or request.resolver_match is None:
            return None
        needed = missing(request)
        if needed and request.resolver_match.url_name not in OPEN_TO[needed]:
            return redirect(GO_TO[needed])
        return None


def missing(request: HttpRequest) -> Standing | None:
    """Return what the session of a user who gave the password needs to be signed in, or None."""
    bool(request.user.is_authenticated)  # looks the user up
    found: Standing | None = getattr(request, "_missing", None)
    return found


def to_second_factor(request: HttpRequest, back: str) -> HttpResponseBase | None:
    """Return a redirect to the page where the session's second factor is set up or shown, or None if nothing is
    missing. From there the user comes `back`."""
    needed = missing(request)
    if needed is None:
        return None
    page = redirect(GO_TO[needed])
    page["Location"] += f"?{urlencode({'next': back})}"
    return page


def note_second_factor(request: HttpRequest, user: Any) -> None:
    """Note in the session that the user has just shown a second factor."""
    request.session[SHOWN] = [user.pk, timezone.now().timestamp()]


def _admitted(request: HttpRequest) -> Any:
    user = get_user(request)
    if not user.is_authenticated:
        return user
    if _is_over(request, timezone.now()) or _is_idle(request, timezone.now()):
        request.session.flush()
        return AnonymousUser()
    standing = second_factor.standing(user, _shown_at(request, user))
    if standing is Standing.COMPLETE:
        return user
    request._missing = standing  # type: ignore[attr-defined]
    return user if request.path_info.startswith(ACCOUNT) else AnonymousUser()


async def _admitted_later(request: HttpRequest) -> Any:
    raise NotImplementedError("Convo's views are not async: ask for request.user.")


def _shown_at(request: HttpRequest, user: Any) -> datetime | None:
    whose, at = request.session.get(SHOWN) or (None, 0)
    return datetime.fromtimestamp(at, UTC) if whose == user.pk else None


def _is_over(request: HttpRequest, now: datetime) -> bool:
    """Return whether the user signed in so long ago that they have to do so again, however busy they are."""
    return bool(now.timestamp() - request.session.get(SIGNED_IN, math.inf) >= settings.SESSION_COOKIE_AGE)


def _is_idle(request: HttpRequest, now: datetime) -> bool:
    """Return whether the user has done nothing for SIGN_IN_IDLE_MINUTES; if not, note what they do now."""
    if not settings.SIGN_IN_IDLE_MINUTES:
        return False
    seen = request.session.get(SEEN)
    since = now - datetime.fromtimestamp(seen, UTC) if seen else NOTED_EVERY
    if seen and since >= timedelta(minutes=settings.SIGN_IN_IDLE_MINUTES):
        return True
    is_automatic = request.path_info.rstrip("/").rpartition("/")[2] in AUTOMATIC
    if seen is None or (since >= NOTED_EVERY and not is_automatic):
        request.session[SEEN] = now.timestamp()
    return False
