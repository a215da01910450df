"""Standard Webhooks: how two servers that share a secret sign what they post to each other.

Source: https://github.com/standard-webhooks/standard-webhooks, "Specification"; signatures of version 1 (HMAC-SHA256).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Iterator, Mapping, Sequence

from channels_out.errors import InboundError

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = 300  # seconds between the two clocks, either way; an older webhook is a replay

_PREFIX = "whsec_"
_VERSION = "v1,"
_MAX_ID = 255


def headers(secrets: Sequence[str], message_id: str, body: bytes, *, at: int | None = None) -> dict[str, str]:
    """Return the three headers for a body, with a signature by each of the secrets.

    Arguments:
        secrets: as the other side has them, "whsec_" and base64; an invalid one is left out.
        message_id: the same each time that the same message is posted.
        at: seconds since 1970; now, unless given.
    """
    timestamp = str(int(time.time()) if at is None else at)
    signatures = [_signature(key, message_id, timestamp, body) for key in _keys(secrets)]
    return {ID: message_id, TIMESTAMP: timestamp, SIGNATURE: " ".join(signatures)}


def verify(given: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: float | None = None) -> None:
    """Return if one of the secrets signed the raw bytes within `TOLERANCE`. Raises InboundError (`invalid_signature`).

    `given` are the request's headers, with names in lower case.
    """
    message_id, timestamp = given.get(ID, ""), given.get(TIMESTAMP, "")
    if 0 < len(message_id) <= _MAX_ID and _is_recent(timestamp, time.time() if now is None else now):
        claimed = [each.encode("utf-8", "surrogateescape") for each in given.get(SIGNATURE, "").split(" ")]
        for key in _keys(secrets):
            expected = _signature(key, message_id, timestamp, body).encode()
            if any(hmac.compare_digest(expected, each) for each in claimed):
                return
    raise InboundError("The signature does not match.", code="invalid_signature")


def is_secret(text: str) -> bool:
    """Return True if the text is a secret: "whsec_" (which may be missing) and base64 that is not empty."""
    return any(True for _ in _keys([text]))


def _is_recent(timestamp: str, now: float) -> bool:
    return (
        timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 15 and abs(now - int(timestamp)) <= TOLERANCE
    )


def _keys(secrets: Sequence[str]) -> Iterator[bytes]:
    for secret in secrets:
        encoded = secret.removeprefix(_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        if key:
            yield key


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode("utf-8", "surrogateescape"), timestamp.encode(), body))
    return _VERSION + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
