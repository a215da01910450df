"""JSON of the values that our rows hold."""

from __future__ import annotations

import json
from datetime import date, time
from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """Return the value as JSON; types that JSON does not have become text.

    orjson writes no integers beyond 64 bits, and PostgreSQL makes one of 1e300: the standard library writes these.
    """
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        return json.dumps(value, default=_text, ensure_ascii=False).encode()


def _text(value: Any) -> str:
    """The value as orjson writes it."""
    return value.isoformat() if isinstance(value, date | time) else str(value)
