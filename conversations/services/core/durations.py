"""Durations in words, for people."""

from __future__ import annotations

from datetime import timedelta

from django.utils.translation import ngettext

UNITS = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}


def in_words(span: timedelta) -> str:
    """Return the duration in whole units of the reader's language, the largest first, such as "1 day 2 hours"."""
    parts = []
    for name, unit in UNITS.items():
        number, span = divmod(span, unit)
        if number:
            parts.append(counted(name, number))
    return " ".join(parts) or counted("second", 0)


def counted(unit: str, number: int) -> str:
    """Return so many of one of UNITS in the reader's language, such as "2 hours"."""
    words = {
        "day": ngettext("%(n)s day", "%(n)s days", number),
        "hour": ngettext("%(n)s hour", "%(n)s hours", number),
        "minute": ngettext("%(n)s minute", "%(n)s minutes", number),
        "second": ngettext("%(n)s second", "%(n)s seconds", number),
    }
    return words[unit] % {"n": number}
