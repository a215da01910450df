"""What a person has chosen for the pages that they see: the language and the time zone.

Only pages follow it. Answers to programs, logs, events and what customers are sent do not.
"""

from __future__ import annotations

from functools import cache
from zoneinfo import available_timezones

from django.conf import settings
from django.utils.translation import gettext

from conversations.models import Preferences
from conversations.services.core.errors import InvalidError

REGIONS = {
    *("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"),
}


def preferences_of(user_id: int) -> Preferences:
    """Return what the user has chosen; an unsaved row without choices if nothing."""
    return Preferences.objects.filter(user=user_id).first() or Preferences(user_id=user_id)


def language_of(user_id: int) -> str:
    """Return the code of the language in which the user is written to: the chosen one, else English."""
    code = preferences_of(user_id).language
    return code if code in dict(settings.LANGUAGES) else "en"


def choose(user_id: int, *, language: str, time_zone: str) -> Preferences:
    """Store the user's choices and return them. Empty: as the browser says.

    Raises InvalidError for a language or zone that does not exist.
    """
    if language and language not in dict(settings.LANGUAGES):
        raise InvalidError(gettext("There is no such language."), code="no_such_language")
    if time_zone and not is_zone(time_zone):
        raise InvalidError(gettext("There is no such time zone."), code="no_such_time_zone")
    values = {"language": language, "time_zone": time_zone}
    chosen, _ = Preferences.objects.update_or_create(user_id=user_id, defaults=values)
    return chosen


def is_zone(name: str) -> bool:
    """Return whether the tz database has a zone of this name."""
    return name in _zones()


@cache
def zones() -> tuple[str, ...]:
    """Return the zones to choose from: cities by their region, and UTC."""
    return ("UTC", *sorted(name for name in _zones() if name.partition("/")[0] in REGIONS and "/" in name))


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory", "posixrules"})  # which name no place
