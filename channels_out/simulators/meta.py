"""What Meta's webhooks and errors look like, on WhatsApp and Messenger alike."""

from __future__ import annotations

import json
import secrets
from typing import Any

from channels_out.adapters import meta
from channels_out.simulators.contract import Misbehaviour, ProviderAnswer

RETRY_AFTER = {"Retry-After": "2"}


def digits(number: int) -> str:
    """So many random digits, as Meta's ids are made of; the first is no 0."""
    return str(secrets.randbelow(9 * 10 ** (number - 1)) + 10 ** (number - 1))


def written(payload: Any) -> bytes:
    """JSON as Meta writes it: everything but ASCII escaped, slashes too."""
    return json.dumps(payload, separators=(",", ":")).replace("/", "\\/").encode()


def signature_headers(secret: str, body: bytes) -> dict[str, str]:
    """The header that signs a body."""
    return {"X-Hub-Signature-256": meta.signature(secret, body)}


def error(status: int, code: int, message: str, **more: Any) -> ProviderAnswer:
    """An error answer of the Graph API."""
    content = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code, **more}
    return ProviderAnswer(status, json.dumps({"error": {**content, "fbtrace_id": "AbCdEfGhIjK"}}))


def page_of_an_error() -> ProviderAnswer:
    """A server that is in trouble does not speak JSON."""
    return ProviderAnswer(500, "<html><body><h1>500 Internal Server Error</h1></body></html>", "text/html")


def refused() -> ProviderAnswer:
    """The access token is wrong or revoked."""
    return error(401, 190, "Error validating access token: the session has been invalidated")


def throttled(code: int) -> ProviderAnswer:
    """429, with the provider's own code."""
    answer = error(429, code, "Rate limit hit")
    return ProviderAnswer(answer.status, answer.body, headers=RETRY_AFTER)


def failure(misbehaviour: Misbehaviour, *, throttled_as: int, undeliverable: ProviderAnswer) -> ProviderAnswer:
    """What is the same for all that Meta runs."""
    if misbehaviour is Misbehaviour.THROTTLED:
        return throttled(throttled_as)
    if misbehaviour is Misbehaviour.UNDELIVERABLE:
        return undeliverable
    return refused() if misbehaviour is Misbehaviour.REFUSED else page_of_an_error()
