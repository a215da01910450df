"""A form field for durations as people write them: "10 minutes", "1 day 12 hours"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from conversations.services.core.durations import UNITS, counted, in_words
from conversations.words import lazy as _
from memory.words import fold

_PART = re.compile(r"(\d{1,6})\s*([^\W\d_]+)")


def from_words(text: str) -> timedelta | None:
    """Return the duration that the words name, in English or the reader's language, or None if they name none."""
    parts, units = _PART.findall(text), _units()
    if _PART.sub("", text).strip(" ,") or not parts or any(fold(word) not in units for _number, word in parts):
        return None
    return sum((int(number) * units[fold(word)] for number, word in parts), timedelta())


def _units() -> dict[str, timedelta]:
    """Return the units by their words without accents, one and many."""
    found = {}
    for name, unit in UNITS.items():
        for words in (counted(name, 1), counted(name, 2), f"1 {name}", f"2 {name}s"):
            found[fold(words.partition(" ")[2])] = unit
    return found


class DurationInWordsField(forms.DurationField):
    """A text field for a duration, in words or in Django's own notation (1 12:00:00)."""

    default_error_messages = {"invalid": _("Write a time like “10 minutes”, “24 hours” or “1 day 12 hours”.")}

    def prepare_value(self, value: Any) -> Any:
        """Return the duration in words."""
        return in_words(value) if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> timedelta | None:
        """Return the duration. Raises ValidationError if the text names none or a negative one."""
        words = from_words(value) if isinstance(value, str) else None
        if words is not None:
            return words
        duration = super().to_python(value)
        if duration is not None and duration < timedelta():
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return duration
