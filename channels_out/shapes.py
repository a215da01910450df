"""Readers for payloads of others: none of them raises over a wrong type, a null or a missing key.

Their results can be stored: PostgreSQL accepts no NUL and UTF-8 no unpaired surrogates, so each of these becomes
U+FFFD; numbers are finite; nesting is bounded. A provider's payload is cleaned rather than refused, because providers
redeliver a refused one for days.
"""

from __future__ import annotations

import json
import math
import re
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from channels_out.errors import InboundError

MAX_NODES = 250_000  # values of one document; a genuine payload of 10,000 events has 150,000
MAX_DEPTH = 100  # genuine payloads nest about ten deep; orjson writes at most 254, Django's JSON encoder under 1,000
MAX_IDENTIFIER = 255
MAX_NAME = 200

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # control and bidi override

_EARLIEST = 1_230_768_000  # 2009: no message of any provider here is older
_MILLISECONDS = 100_000_000_000  # as seconds this is the year 5138, as milliseconds 1973
_CLOCK_SKEW = 86_400


def load_json(body: bytes) -> Any:
    """Return a JSON document, fit to be stored. Raises InboundError (`malformed`)."""
    if has_more_nodes(body, MAX_NODES):
        raise InboundError(f"The JSON body has more than {MAX_NODES:,} values.", code="malformed")
    try:
        value = orjson.loads(body)
        unclean = b"\\u0000" in body
    except orjson.JSONDecodeError:
        value = _load_leniently(body)  # unpaired surrogates, NaN and bad UTF-8 are what orjson refuses
        unclean = True
    # A document cannot nest deeper than it has brackets: most need no walk.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _nests_deeper(value, MAX_DEPTH):
        raise InboundError("The JSON body is nested too deeply.", code="malformed")
    return clean(value) if unclean else value


def has_more_nodes(body: bytes, most: int) -> bool:
    """Return whether a JSON document has more than `most` values, without parsing it.

    Every value but the first follows a comma or an opening bracket. Those in strings are left out where it matters.
    """
    if len(body) <= most or _openings(body) < most:
        return False
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * most:  # two for each string, and at most every other string is a key
        return True
    return _openings(b"".join(bare.split(b'"')[::2])) >= most


def _openings(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def clean_text(value: str) -> str:
    """Return the text with U+FFFD for each NUL and each unpaired surrogate."""
    return _UNSTORABLE.sub("\ufffd", value)


def clean(value: Any) -> Any:
    """Return the JSON value with every string cleaned by `clean_text`, keys too."""
    if type(value) is str:
        return clean_text(value)
    if type(value) is list:
        return [clean(child) for child in value]
    if type(value) is dict:
        return {clean_text(key): clean(child) for key, child in value.items()}
    return value


def value_of(holder: Any, key: str) -> Any:
    """Return the value at `key`, None if there is none or the holder is not an object."""
    return holder.get(key) if type(holder) is dict else None


def text(holder: Any, key: str) -> str:
    """Return the string at `key`, '' if there is none."""
    value = holder.get(key) if type(holder) is dict else None
    return value if type(value) is str else ""


def identifier(holder: Any, key: str) -> str:
    """Return the string at `key` if it can be an id (not blank, at most 255 characters), else ''."""
    value = holder.get(key) if type(holder) is dict else None
    return value if type(value) is str and len(value) <= MAX_IDENTIFIER and value.strip() else ""


def identifiers(holder: Any, key: str) -> list[str]:
    """Return the strings in the array at `key` that can be ids, each once, in order."""
    ids = (each for each in items(holder, key) if type(each) is str and len(each) <= MAX_IDENTIFIER and each.strip())
    return list(dict.fromkeys(ids))


def record(holder: Any, key: str) -> dict[str, Any]:
    """Return the object at `key`, or an empty one."""
    value = holder.get(key) if type(holder) is dict else None
    return value if type(value) is dict else {}


def items(holder: Any, key: str) -> list[Any]:
    """Return the array at `key`, or an empty one."""
    value = holder.get(key) if type(holder) is dict else None
    return value if type(value) is list else []


def plain_facts(value: Any, *, depth: int = 2) -> dict[str, Any]:
    """Return the object's texts, numbers and truths, and those of objects in it; at most 50 at each depth.

    Nothing else of it is kept: no arrays, no texts of more than 4,096 characters. {} if it is no object.
    """
    if type(value) is not dict:
        return {}
    found: dict[str, Any] = {}
    for key, each in list(value.items())[:50]:
        if type(each) is dict:
            each = None if depth < 2 else plain_facts(each, depth=depth - 1) or None
        if type(each) in (int, float, bool, dict) or (type(each) is str and 0 < len(each) <= 4096):
            found[key[:100]] = each
    return found


def person_name(value: str) -> str | None:
    """Return a name to show: one line, no control characters, at most 200 characters. None if nothing is left."""
    line = value if value.isprintable() else _UNPRINTABLE.sub(" ", value)
    return " ".join(line.split())[:MAX_NAME].strip() or None


def moment(value: Any) -> datetime | None:
    """Return the time of a number or of digits, in seconds or milliseconds since 1970 (providers mix them).

    Returns None if it is impossible: before 2009, or more than a day from now.
    """
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= len("1700000000000"):
        value = int(value)
    if type(value) is not int:
        return None
    seconds = value / 1000 if value >= _MILLISECONDS else value
    if not _EARLIEST <= seconds <= time.time() + _CLOCK_SKEW:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _load_leniently(body: bytes) -> Any:
    try:
        return json.loads(
            body.decode("utf-8", "replace"),
            parse_int=lambda digits: int(digits) if len(digits) < len(str(2**63)) else _finite(digits),
            parse_float=_finite,
            parse_constant=lambda _name: None,
        )
    except (ValueError, RecursionError):
        raise InboundError("The body is not JSON.", code="malformed") from None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _nests_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for holder in level
            for child in (holder.values() if type(holder) is dict else holder)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True
