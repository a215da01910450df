"""The page behind the link that ends e-mails: `/mail/unsubscribe/<token>`. It needs no sign-in.

Programs that look into e-mails follow links, so a GET changes nothing. A mail program's own button posts (RFC 8058).
"""

from __future__ import annotations

from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from conversations.services.desk import mail_choices
from conversations.services.tenants import preferences


@csrf_exempt  # a mail program posts without a cookie; the token is what counts
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Return the page that asks; a POST ends the e-mails. A token that was not made here is a 404."""
    try:
        user_id, kind = mail_choices.kind_of(token)
        if request.method == "POST":
            mail_choices.unsubscribe(token)
    except (BadSignature, ValueError, TypeError):
        return render(request, "mail/unsubscribe.html", {"unknown": True}, status=404)
    with translation.override(preferences.language_of(user_id)):
        return render(request, "mail/unsubscribe.html", {"kind": kind, "is_done": request.method == "POST"})
