"""Times to wait, as people write them: "10 minutes", "1 day 12 hours"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from conversations.services.core.durations import UNITS, in_words

_PART = re.compile(r"(\d{1,6})\s*(day|hour|minute|second)s?", re.IGNORECASE)


def from_words(text: str) -> timedelta | None:
    """The span that the words name, None where they name none."""
    if _PART.sub("", text).strip(" ,") or not _PART.search(text):
        return None
    return sum((int(number) * UNITS[unit.lower()] for number, unit in _PART.findall(text)), timedelta())


class SpanField(forms.DurationField):
    """A text field for a span, in words or in Django's own notation."""

    default_error_messages = {"invalid": "Write a time like “10 minutes”, “24 hours” or “1 day 12 hours”."}

    def prepare_value(self, value: Any) -> Any:
        """In words."""
        return in_words(value) if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> timedelta | None:
        """Raises ValidationError."""
        words = from_words(value) if isinstance(value, str) else None
        if words is not None:
            return words
        span = super().to_python(value)
        if span is not None and span < timedelta():
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return span
