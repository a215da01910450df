"""Meta's end, for WhatsApp and Messenger alike: its JSON and signature, and the answers of the Graph API."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError
from channels_out.simulators.contract import InjectedFault, SimulatedResponse, Simulator, UnsignedWebhook


@dataclass(frozen=True)
class SignedWebhook:
    """A webhook as a provider posts it: the bytes and all headers."""

    body: bytes
    headers: Mapping[str, str]


# --- what Meta posts


def meta_json(payload: Any) -> bytes:
    """Return JSON as Meta writes it: everything but ASCII escaped, slashes too."""
    return json.dumps(payload, separators=(",", ":")).replace("/", "\\/").encode()


def meta_signature(body: bytes, app_secret: str) -> dict[str, str]:
    """Return the header by which a Meta app signs a body."""
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()}


def signed_by_meta(payload: Any, app_secret: str) -> SignedWebhook:
    """Return any payload as Meta posts it."""
    body = meta_json(payload)
    return SignedWebhook(body, {"Content-Type": "application/json", **meta_signature(body, app_secret)})


def posted_by_dialog360(payload: Any, webhook_secret: str) -> SignedWebhook:
    """Return any payload as 360dialog posts it: unsigned, with the header that was registered with the address."""
    return SignedWebhook(meta_json(payload), {"Content-Type": "application/json", "X-Convo-Secret": webhook_secret})


# --- what the Graph API answers


def graph_error(code: int, message: str = "An error", *, subcode: int = 0, details: str = "") -> dict[str, Any]:
    """Return the body of an error answer. `details` are where WhatsApp puts them."""
    error: dict[str, Any] = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code}
    if subcode:
        error["error_subcode"] = subcode
    if details:
        error["error_data"] = {"messaging_product": "whatsapp", "details": details}
    return {"error": {**error, "fbtrace_id": "AbCdEfGhIjK"}}


def error_answer(status: int, code: int, message: str, **more: Any) -> SimulatedResponse:
    """Return an error answer, with more fields in its `error`."""
    content = graph_error(code, message)["error"]
    return SimulatedResponse(status, json.dumps({"error": {**content, **more}}))


def content_of(request: InboundRequest) -> Any:
    """Return the body as JSON, None if it is not JSON."""
    try:
        return request.json()
    except InboundError:
        return None


def new_account_id() -> str:
    """Return 15 random digits, as Meta's ids have; the first is not 0."""
    return str(secrets.randbelow(9 * 10**14) + 10**14)


class MetaSimulator(Simulator):
    """One account of one Meta app.

    throttled_code      the product's error code for too many messages
    undeliverable       the product's answer to a message that cannot be delivered
    """

    throttled_code: ClassVar[int]
    undeliverable: ClassVar[SimulatedResponse]

    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return an id of a number or page, and the credentials from Meta's console."""
        names = ("access_token", "app_secret", "verify_token")
        return new_account_id(), {name: secrets.token_hex(16) for name in names}

    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """Return the signature by the Meta app's secret."""
        return meta_signature(webhook.body, account.secrets("app_secret")[0])

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request has the account's access token."""
        expected = f"Bearer {account.credentials.get('access_token', '')}".encode()
        return hmac.compare_digest(request.headers.get("authorization", "").encode("utf-8", "replace"), expected)

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return the Graph API's error. A server that is out of order does not answer in JSON."""
        if fault is InjectedFault.THROTTLED:
            return replace(error_answer(429, self.throttled_code, "Rate limit hit"), headers={"Retry-After": "2"})
        if fault is InjectedFault.UNDELIVERABLE:
            return self.undeliverable
        if fault is InjectedFault.REFUSED:
            return error_answer(401, 190, "Error validating access token: the session has been invalidated")
        return SimulatedResponse(500, "<html><body><h1>500 Internal Server Error</h1></body></html>", "text/html")
