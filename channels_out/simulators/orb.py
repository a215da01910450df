"""The payloads of a gateway for devices: what it posts for them, and how it reads what we post.

    event = said("kitchen", "orb-7", "Turn the lights on")
    body, headers = signed(event, "whsec_…")

`gateway` is the name of the gateway in its events, which is the account's address at Convo.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from channels_out import standard_webhooks
from channels_out.errors import InboundError

MESSAGE_CREATED = "message.created"
MESSAGE_REPLY = "message.reply"
GATEWAY_CHECK = "gateway.check"
RECEIPTS = ("message.delivered", "message.read", "message.failed")


def new_id() -> str:
    """Return a new id of a message."""
    return "msg_" + secrets.token_hex(12)


def new_secret() -> str:
    """Return a secret with which both sides sign."""
    return "whsec_" + secrets.token_urlsafe(32).replace("-", "+").replace("_", "/")


# --- what a gateway posts
def said(
    gateway: str, device_id: str, words: str, *, message_id: str = "", kind: str = "text", **more: Any
) -> dict[str, Any]:
    """Return the event for words that a person said to a device. `more`: `user_id`, `name`, `phone`, `metadata`."""
    content = {"type": kind, "text": words}
    return event(
        MESSAGE_CREATED,
        gateway,
        {"device_id": device_id, "message_id": message_id or new_id(), "content": content, **more},
    )


def receipt(gateway: str, status: str, message_id: str, *, code: str = "", reason: str = "") -> dict[str, Any]:
    """Return the event for the status of a message of ours: `delivered`, `read` or `failed`."""
    why = {name: value for name, value in (("code", code), ("reason", reason)) if value}
    return event(f"message.{status}", gateway, {"message_id": message_id, **why})


def event(kind: str, gateway: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of any type with the current time."""
    return {
        "type": kind,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "gateway": gateway,
        "data": dict(data),
    }


def signed(payload: Any, secret: str, *, event_id: str = "", at: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of an event and the headers to post them with. `at`: seconds since 1970, now unless given."""
    body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    headers = standard_webhooks.headers([secret], event_id or new_id(), body, at=at)
    return body, {"Content-Type": "application/json", **headers}


# --- how a gateway reads what we post
def taken(headers: Mapping[str, str], body: bytes, secret: str) -> tuple[int, dict[str, Any]]:
    """Return the status of the answer, and the event if it is one of Convo's. Header names are in lower case."""
    try:
        standard_webhooks.verify(headers, body, [secret])
    except InboundError:
        return 401, {}
    try:
        payload = json.loads(body)
    except ValueError:
        return 400, {}
    known = isinstance(payload, dict) and payload.get("type") in (MESSAGE_REPLY, GATEWAY_CHECK)
    return (200, payload) if known else (400, {})
