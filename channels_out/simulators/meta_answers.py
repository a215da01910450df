"""How Meta's Graph API answers when something is wrong, on WhatsApp and Messenger alike."""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import replace
from typing import Any

from channels_out.contract import Account, InboundRequest
from channels_out.simulators import wire
from channels_out.simulators.contract import Misbehaviour, ProviderAnswer

RETRY_AFTER = {"Retry-After": "2"}


def digits(number: int) -> str:
    """So many random digits, as Meta's ids are made of; the first is no 0."""
    return str(secrets.randbelow(9 * 10 ** (number - 1)) + 10 ** (number - 1))


def has_token(account: Account, request: InboundRequest) -> bool:
    """Whether the request has the account's access token."""
    expected = f"Bearer {account.credentials.get('access_token', '')}".encode()
    return hmac.compare_digest(request.headers.get("authorization", "").encode("utf-8", "replace"), expected)


def error(status: int, code: int, message: str, **more: Any) -> ProviderAnswer:
    """An error answer."""
    content = wire.graph_error(code, message)["error"]
    return ProviderAnswer(status, json.dumps({"error": {**content, **more}}))


def failure(misbehaviour: Misbehaviour, *, throttled_as: int, undeliverable: ProviderAnswer) -> ProviderAnswer:
    """What is the same for all that Meta runs. A server that is in trouble does not speak JSON."""
    if misbehaviour is Misbehaviour.THROTTLED:
        return replace(error(429, throttled_as, "Rate limit hit"), headers=RETRY_AFTER)
    if misbehaviour is Misbehaviour.UNDELIVERABLE:
        return undeliverable
    if misbehaviour is Misbehaviour.REFUSED:
        return error(401, 190, "Error validating access token: the session has been invalidated")
    return ProviderAnswer(500, "<html><body><h1>500 Internal Server Error</h1></body></html>", "text/html")
