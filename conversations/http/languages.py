"""The language and time zone of a page: those that the person chose, else those of the browser, else English and UTC.

Only pages have them. Every other request, a program's above all, is answered in English and UTC and pays nothing: the
fast path never comes here, and for the others a look at the path is all.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext

from conversations.services.tenants import preferences

PAGES = ("/admin/", "/copilot/login", "/copilot/app", "/copilot/panel")
ZONE_COOKIE = "convo_zone"  # the browser's time zone, which admin.js tells
LONGEST = 50  # characters of a zone's name


class LanguageMiddleware:
    """Shows pages in their reader's language and time zone. Stands behind SignedInMiddleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Return the response, whose thread goes back to English and UTC."""
        if not is_page(request.path_info):
            return self._get_response(request)
        language, zone = chosen(request)
        with translation.override(language), timezone.override(ZoneInfo(zone)):
            response = self._get_response(request)
        response.headers.setdefault("Content-Language", language)
        patch_vary_headers(response, ["Accept-Language"])
        return response


def is_page(path: str) -> bool:
    """Return whether a person reads what is at the path."""
    return path == "/" or path.startswith(PAGES)


def chosen(request: HttpRequest) -> tuple[str, str]:
    """Return the code of the reader's language, and the name of their time zone."""
    own = preferences.preferences_of(request.user.pk) if request.user.is_authenticated else None
    language = own.language if own and translation.check_for_language(own.language) else ""
    zone = own.time_zone if own else ""
    return language or translation.get_language_from_request(request), zone or zone_of_browser(request)


def zone_of_browser(request: HttpRequest) -> str:
    """Return the time zone that the browser told, or UTC."""
    told = request.COOKIES.get(ZONE_COOKIE, "")
    return told if len(told) <= LONGEST and preferences.is_zone(told) else "UTC"


def subheader(request: HttpRequest) -> str:
    """Return what stands below the name of the back office: the time zone of its pages."""
    return gettext("Back office, times in %(zone)s") % {"zone": timezone.get_current_timezone_name().replace("_", " ")}


def words_address(request: HttpRequest) -> str:
    """Return the address of the script that gives scripts their words and the reader's time zone."""
    language = translation.get_language() or "en"
    query = urlencode({"v": settings.LANGUAGES_VERSION, "zone": timezone.get_current_timezone_name()})
    return f"{reverse('words', args=[language])}?{query}"
