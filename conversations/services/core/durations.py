"""Durations in words, for people."""

from __future__ import annotations

from datetime import timedelta

UNITS = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}


def in_words(span: timedelta) -> str:
    """Return the duration in whole units, the largest first, such as "1 day 2 hours"."""
    parts = []
    for name, unit in UNITS.items():
        number, span = divmod(span, unit)
        if number:
            parts.append(f"{number} {name}{'' if number == 1 else 's'}")
    return " ".join(parts) or "0 seconds"
