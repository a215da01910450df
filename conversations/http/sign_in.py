"""The limit on sign-in attempts for both sign-in pages, the copilot's and the back office's."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest
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
        name, address = request.POST.get("username", ""), _address(request)
        try:
            sign_in_limits.count_attempt(name, address, timezone.now())
        except TooManyError as error:
            minutes = -(-error.retry_after // 60)
            answer = render(request, "sign_in_later.html", {"minutes": minutes}, status=429)
            answer["Retry-After"] = str(error.retry_after)
            return answer
        page = view(request, *args, **kwargs)
        # Only for the name that signed in: a signed-in user may be guessing somebody else's password.
        if page.status_code == 302 and request.user.get_username() == unicodedata.normalize("NFKC", name).strip():
            sign_in_limits.record_success(name, address)
        return page

    return checked


def _address(request: HttpRequest) -> str:
    """Return the address of the request: with TRUST_PROXY the last one in X-Forwarded-For, which the proxy in front of
    Convo writes; else the peer's."""
    named = request.headers.get("X-Forwarded-For", "").split(",")[-1].strip() if settings.TRUST_PROXY else ""
    return named or request.META.get("REMOTE_ADDR", "")
