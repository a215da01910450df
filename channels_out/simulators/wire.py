"""What goes over the wire, and how Meta writes and signs it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Webhook:
    """What a provider posts: the bytes and their headers."""

    body: bytes
    headers: Mapping[str, str]


def meta_json(payload: Any) -> bytes:
    """JSON as Meta writes it: everything but ASCII escaped, slashes too."""
    return json.dumps(payload, separators=(",", ":")).replace("/", "\\/").encode()


def meta_signature(body: bytes, app_secret: str) -> dict[str, str]:
    """The header by which a Meta app signs a body."""
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()}


def signed_by_meta(payload: Any, app_secret: str) -> Webhook:
    """Any payload as Meta posts it."""
    body = meta_json(payload)
    return Webhook(body, {"Content-Type": "application/json", **meta_signature(body, app_secret)})


def posted_by_dialog360(payload: Any, webhook_secret: str) -> Webhook:
    """Any payload as 360dialog posts it: unsigned, with the header that was given along with the webhook's address."""
    return Webhook(meta_json(payload), {"Content-Type": "application/json", "X-Convo-Secret": webhook_secret})


def graph_error(code: int, message: str = "An error", *, subcode: int = 0, details: str = "") -> dict[str, Any]:
    """The body of an error answer of the Graph API. `details` as WhatsApp gives them."""
    error: dict[str, Any] = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code}
    if subcode:
        error["error_subcode"] = subcode
    if details:
        error["error_data"] = {"messaging_product": "whatsapp", "details": details}
    return {"error": {**error, "fbtrace_id": "AbCdEfGhIjK"}}
