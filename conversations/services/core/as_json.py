"""JSON of whatever our rows hold."""

from __future__ import annotations

import json
from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """The value as JSON; what JSON has no form for as text.

    orjson writes no whole numbers beyond 64 bits, and PostgreSQL makes one of 1e300.
    """
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        return json.dumps(value, default=str, ensure_ascii=False).encode()
