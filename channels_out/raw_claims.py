"""Strings in raw JSON, found without parsing it: which accounts a webhook claims to be for.

A stranger may post any body. So the signature is checked before a body is parsed, and the account whose secret signs it
is found here, in time and memory that no body can raise. What is found is a hint: a decoy in the body, a repeated key
or an escaped one can mislead it. After the signature, the parsed payload decides.
"""

from __future__ import annotations

import re

import orjson

from channels_out.shapes import MAX_IDENTIFIER

MOST_CLAIMS = 100  # different strings; a genuine batch names few accounts
MOST_LOOKED_AT = 2_000  # occurrences of the key: a batch may name one account for each of its events

# What follows a key. No byte is looked at twice: a value ends where the next key could begin.
_VALUE = re.compile(rb'[ \t\r\n]*+:[ \t\r\n]*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_USUAL = re.compile(rb':"([0-9A-Za-z]{1,255})"')
_LONGEST = MAX_IDENTIFIER * len(r"\u0041")


def claims(body: bytes, key: str) -> list[str]:
    """Return the strings that follow `"key":` in the bytes, each once, in order: at most MOST_CLAIMS that can be ids.

    key: plain ASCII; a body that writes it with escapes gives nothing
    """
    quoted = b'"%b"' % key.encode()
    found: list[str] = []
    at = body.find(quoted)
    for _ in range(MOST_LOOKED_AT):
        if at < 0:
            break
        at += len(quoted)
        value = _string_at(body, at)
        if value and value not in found:
            found.append(value)
            if len(found) == MOST_CLAIMS:
                break
        at = body.find(quoted, at)
    return found


def _string_at(body: bytes, at: int) -> str:
    """The string after the key that ends here, '' if there is none that can be an id."""
    usual = _USUAL.match(body, at)
    if usual:
        return usual[1].decode()
    match = _VALUE.match(body, at)
    if match is None or len(match[1]) > _LONGEST:
        return ""
    try:
        value = str(orjson.loads(b'"%b"' % match[1]))
    except ValueError:
        return ""
    return value if len(value) <= MAX_IDENTIFIER and value.strip() else ""
