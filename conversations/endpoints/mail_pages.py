"""The page behind the link that ends e-mails: `/mail/unsubscribe/<token>`. It needs no sign-in.

Programs that look into e-mails follow links, so a GET changes nothing. A mail program's own button posts (RFC 8058).
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from conversations.services.desk import mail_choices


@csrf_exempt  # a mail program posts without a cookie; the token is what counts
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Return the page that asks; a POST ends the e-mails. A token that was not made here is a 404."""
    try:
        _, kind = mail_choices.kind_of(token)
        if request.method == "POST":
            mail_choices.unsubscribe(token)
    except (BadSignature, ValueError, TypeError):
        return _page(request, 404, unknown=True)
    return _page(request, 200, kind=kind, is_done=request.method == "POST")


def _page(request: HttpRequest, status: int, **shown: Any) -> HttpResponse:
    context = {**admin.site.each_context(request), **shown}  # names, colours and styles of the back office
    return render(request, "mail/unsubscribe.html", context, status=status)
