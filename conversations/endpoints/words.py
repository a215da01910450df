"""The words of scripts in one language, as a script (Django's catalogue of `djangojs`).

It gives `gettext`, `ngettext` and `interpolate`, and `django.when`, which writes a time in the page's language and in
the zone that its address names.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import translation
from django.utils.translation import get_language
from django.utils.translation.trans_real import DjangoTranslation
from django.views.decorators.http import require_safe
from django.views.i18n import JavaScriptCatalog

WHEN = """
django.zone = new URL(document.currentScript.src).searchParams.get("zone") || undefined;
django.when = function (at, options) {
  return at.toLocaleString(document.documentElement.lang || [], { ...options, timeZone: django.zone });
};
"""


class _Catalogue(JavaScriptCatalog):
    def get_paths(self, packages: Any) -> list[str]:
        """Return the folders of our catalogues."""
        return [str(path) for path in settings.LOCALE_PATHS]


def words_of(request: HttpRequest) -> dict[str, Any]:
    """Return the sentences of scripts in the reader's language, by the English ones."""
    catalogue = _Catalogue()
    catalogue.translation = DjangoTranslation(
        get_language() or "en", domain="djangojs", localedirs=catalogue.get_paths(None)
    )
    found: dict[str, Any] = catalogue.get_catalog()
    return found


@require_safe
def words(request: HttpRequest, language: str) -> HttpResponse:
    """Return the script. It holds nothing of anybody, and browsers keep it for an hour."""
    if language not in dict(settings.LANGUAGES):
        raise Http404
    with translation.override(language):
        script: Any = _Catalogue.as_view()(request)
        script.write(WHEN)
        script["Content-Language"] = get_language() or language
    script["Cache-Control"] = "public, max-age=3600"
    answer: HttpResponse = script
    return answer
