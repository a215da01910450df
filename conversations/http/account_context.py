"""The context of the pages below /admin/account/, which allauth's views do not give."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from conversations.http.signed_in import ACCOUNT, missing


def account_context(request: HttpRequest) -> dict[str, Any]:
    """Return the names, colours and scripts of the back office, and what the session lacks; nothing for other pages."""
    if not request.path_info.startswith(ACCOUNT):
        return {}
    needed = missing(request)
    home = reverse("admin:index") if getattr(request.user, "is_staff", False) else settings.COPILOT_PAGE
    return {**admin.site.each_context(request), "needed": needed.value if needed else "", "home": home}
