"""The limit on guesses of passwords: on both sign-in pages, and where a signed-in user changes the password."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from conversations.services.core.errors import TooManyError
from conversations.services.tenants import sign_in_limits

View = Callable[..., HttpResponseBase]


def limit_sign_ins(view: View) -> View:
    """Return the sign-in view with a limit on attempts (services/tenants/sign_in_limits.py).

    Over the limit the response is a 429 with Retry-After, the same for every user name and password.
    """

    @never_cache
    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        name, address = request.POST.get("username", ""), address_of(request)
        if refused := _refuse_above_limit(request, name, address):
            return refused
        page = view(request, *args, **kwargs)
        # Only for the name that signed in: a signed-in user may be guessing somebody else's password.
        if page.status_code == 302 and request.user.get_username() == unicodedata.normalize("NFKC", name).strip():
            sign_in_limits.record_success(name, address)
        return page

    return checked


def limit_password_changes(view: View) -> View:
    """Return the view that asks a signed-in user for the password, to change it or to confirm who they are, with
    guesses limited.

    They are counted together with attempts to sign in: a session that somebody left open is no way to the password.
    """

    @never_cache
    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST" or not request.user.is_authenticated:
            return view(request, *args, **kwargs)
        name, address = request.user.get_username(), address_of(request)
        if refused := _refuse_above_limit(request, name, address):
            return refused
        page = view(request, *args, **kwargs)
        form = (getattr(page, "context_data", None) or {}).get("form")
        if form is None or not {"old_password", "password"} & form.errors.keys():
            sign_in_limits.record_success(name, address)
        return page

    return checked


def _refuse_above_limit(request: HttpRequest, name: str, address: str) -> HttpResponse | None:
    """Count an attempt and return a 429 if there were too many, else None."""
    try:
        sign_in_limits.count_attempt(name, address, timezone.now())
    except TooManyError as error:
        return refusal(request, error)
    return None


def refusal(request: HttpRequest, error: TooManyError) -> HttpResponse:
    """Return the page of somebody who made too many attempts: a 429 with Retry-After."""
    minutes = -(-error.retry_after // 60)
    answer = render(request, "sign_in_later.html", {"minutes": minutes}, status=429)
    answer["Retry-After"] = str(error.retry_after)
    return answer


def address_of(request: HttpRequest) -> str:
    """Return the address of the request: with TRUST_PROXY the last one in X-Forwarded-For, which the proxy in front of
    Convo writes; else the peer's."""
    named = request.headers.get("X-Forwarded-For", "").split(",")[-1].strip() if settings.TRUST_PROXY else ""
    return named or request.META.get("REMOTE_ADDR", "")
