"""The copilot's pages: the panel, which other pages of the site embed by one tag, a page of its own, and a login."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from conversations.endpoints.words import words_of
from conversations.http import envelope
from conversations.http.login import NOT_SIGNED_IN, user_of
from conversations.http.sign_in import limit_sign_ins
from conversations.http.staged_login import StagedLoginView
from conversations.services.copilot import failures, sessions

LOGIN = settings.COPILOT_LOGIN
APP = settings.COPILOT_PAGE

# Nothing from elsewhere, and nothing that stands in a page itself: what slips through the cleaning cannot run.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def guarded(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return the view with a Content-Security-Policy and headers that forbid caching."""

    @wraps(view)
    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = view(request, *args, **kwargs)
        answer["Content-Security-Policy"] = POLICY
        return answer

    return never_cache(answered)


@guarded
@require_safe
def panel(request: HttpRequest) -> HttpResponse:
    """The panel's markup, for the script that puts it into a page; 401 where nobody is signed in."""
    if not request.user.is_authenticated:
        return envelope.failure(401, "not_authenticated", NOT_SIGNED_IN)
    roles = sessions.roles(user_of(request))
    return render(
        request,
        "copilot/panel.html",
        {
            "roles": roles,
            "several_clients": len({role.client_id for role in roles}) > 1,
            "characters": settings.COPILOT_MESSAGE_CHARACTERS,
            "words": {**failures.words(), **words} if (words := words_of(request)) else {},
        },
    )


@guarded
@require_safe
@login_required(login_url=LOGIN)
def app(request: HttpRequest) -> HttpResponse:
    """A page with the panel and nothing else."""
    return render(request, "copilot/app.html")


login = guarded(
    limit_sign_ins(
        StagedLoginView.as_view(template_name="copilot/login.html", redirect_authenticated_user=True, next_page=APP)
    )
)
logout = guarded(auth.LogoutView.as_view(next_page=LOGIN))
