"""Meta's Graph API as WhatsApp's Cloud API speaks it, over real HTTP on a loopback port.

    with FakeMeta(phone_number_id="1234567890", access_token="token", app_secret="secret") as meta:
        account = Account("1234567890", {"access_token": "token"}, base_url=meta.base_url)
        ... send ...
        meta.sent[0].text

It checks the token, the number and the body as Meta does, remembers what it accepted (`sent`, in order; a message sent
twice is there twice), and gives each a wamid. It fails as told:

    meta.throttle_next(2, retry_after=7)            429 with Retry-After
    meta.error_next(131047, status=400)             an error code of Meta's
    meta.fail_next(Fault(status=500))               a page instead of an answer
    meta.fail_next(Fault(status=200, content=b"<html>"))
    meta.fail_next(Fault(hang=30))                  answers too late; the message is accepted
    meta.fail_next(Fault(cut="before"))             hangs up; the message is not accepted
    meta.fail_next(Fault(cut="after"))              hangs up; the message is accepted
    meta.fail_next(Fault(cut="body"))               hangs up in the middle of the answer; the message is accepted

A GET of the number gives its names, to whoever has the token.

And it writes webhooks as Meta does, signed with the app's secret (nothing is posted; post `body` with `headers`):

    webhook = meta.text_webhook("Hello", sender="51999999999", name="Ana")
    webhook = meta.status_webhook(meta.sent[0], "delivered")
    webhook = meta.webhook(messages=[...], statuses=[...])

It needs nothing of the rest of Convo. As a process of its own, it prints its base URL and runs until it is stopped:

    python -m tests.fakes.meta --phone-number-id 1234567890 --access-token token --app-secret secret
    curl $URL/_fake/sent                            what it accepted, as JSON
    curl $URL/_fake/fail -d '{"status": 500, "times": 2}'     fields of Fault
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.server import FakeServer, Fault, Received, Reply

VERSION = "v25.0"
TEXT_LIMIT = 4096


@dataclass(frozen=True)
class Sent:
    """A message that Meta accepted. `to` is a phone number or a business-scoped user id."""

    wamid: str
    to: str
    text: str
    reply_to: str
    our_message_id: str


@dataclass(frozen=True)
class Webhook:
    """What Meta posts: the bytes and their headers."""

    body: bytes
    headers: Mapping[str, str]


def new_wamid() -> str:
    """A message id that looks like Meta's."""
    return "wamid." + base64.b64encode(secrets.token_bytes(36)).decode()


def error_content(code: int, message: str = "An error", details: str = "") -> dict[str, Any]:
    """The body of an error answer."""
    return {
        "error": {
            "message": f"(#{code}) {message}",
            "type": "OAuthException",
            "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": details},
            "fbtrace_id": "AbCdEfGhIjK",
        }
    }


class FakeMeta(FakeServer):
    """One phone number of one WhatsApp Business account of one Meta app."""

    def __init__(
        self,
        phone_number_id: str = "1234567890",
        access_token: str = "token",
        app_secret: str = "secret",
        verify_token: str = "verify",
        port: int = 0,
    ) -> None:
        self.phone_number_id = phone_number_id
        self.access_token = access_token
        self.app_secret = app_secret
        self.verify_token = verify_token
        self.business_account_id = "8856996819413533"
        self.display_phone_number = "250788123200"
        self.sent: list[Sent] = []
        super().__init__(port)

    # --- the API

    def answer(self, request: Received) -> tuple[Reply | None, Fault]:
        """Keeps our own questions out of the record."""
        return (self._control(request), Fault()) if request.path.startswith("/_fake/") else super().answer(request)

    @property
    def base_url(self) -> str:
        """What belongs into an account's base URL."""
        return f"{self.url}/{VERSION}"

    def throttle_next(self, times: int = 1, *, retry_after: object = None, code: int = 130429) -> None:
        """Answer 429, with the header if a value is given."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.fail_next(Fault(429, error_content(code, "Rate limit hit"), headers), times)

    def error_next(self, code: int, status: int = 400, times: int = 1) -> None:
        """Answer with an error code of Meta's."""
        self.fail_next(Fault(status, error_content(code)), times)

    def handle(self, request: Received) -> Reply:
        """Answer as the Graph API does."""
        version, _, path = request.path.partition("?")[0].lstrip("/").partition("/")
        number, _, route = path.partition("/")
        if version != VERSION or (request.method, route) not in {("POST", "messages"), ("GET", "")}:
            return Reply(404, error_content(2500, "Unknown path components"))
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, error_content(190, f"Malformed access token {request.headers.get('authorization')}"))
        if number != self.phone_number_id:
            return Reply(400, error_content(100, f"Object with ID '{number}' does not exist"))
        if request.method == "GET":
            names = {"verified_name": "The shop", "display_phone_number": f"+{self.display_phone_number}"}
            return Reply(200, {**names, "id": number})
        content = request.json()
        problem = _problem(content)
        if problem:
            return Reply(400, error_content(100, "Invalid parameter", problem))
        if content.get("status") == "read":
            return Reply(200, {"success": True})
        return self._accept(content)

    def _accept(self, content: dict[str, Any]) -> Reply:
        to = content.get("to") or content["recipient"]
        message = Sent(
            wamid=new_wamid(),
            to=to,
            text=content["text"]["body"],
            reply_to=content.get("context", {}).get("message_id", ""),
            our_message_id=content.get("biz_opaque_callback_data", ""),
        )
        with self.lock:
            self.sent.append(message)
        person = {"input": to, "wa_id": to} if "to" in content else {"input": to, "user_id": to}
        answer = {"messaging_product": "whatsapp", "contacts": [person], "messages": [{"id": message.wamid}]}
        return Reply(200, answer)

    def _control(self, request: Received) -> Reply:
        if request.path == "/_fake/sent":
            with self.lock:
                return Reply(200, [dataclasses.asdict(message) for message in self.sent])
        if request.path == "/_fake/fail":
            wanted = request.json()
            times = wanted.pop("times", 1)
            self.fail_next(Fault(**wanted), times)
            return Reply(200, {"success": True})
        return Reply(404)

    # --- webhooks

    def text_webhook(
        self,
        text: str,
        *,
        sender: str = "51999999999",
        name: str = "Ana",
        message_id: str = "",
        timestamp: float | None = None,
    ) -> Webhook:
        """A person's text. `message_id` is a fresh wamid unless given; `timestamp` is now, in seconds."""
        message = {
            "from": sender,
            "id": message_id or new_wamid(),
            "timestamp": str(int(timestamp or time.time())),
            "text": {"body": text},
            "type": "text",
        }
        return self.webhook(messages=[message], contacts=[{"profile": {"name": name}, "wa_id": sender}])

    def status_webhook(
        self, message: Sent, status: str, *, error: int | None = None, timestamp: float | None = None
    ) -> Webhook:
        """What became of a message: sent, delivered, read, failed (with a code), played."""
        entry: dict[str, Any] = {
            "id": message.wamid,
            "status": status,
            "timestamp": str(int(timestamp or time.time())),
            "recipient_id": message.to,
        }
        if message.our_message_id:
            entry["biz_opaque_callback_data"] = message.our_message_id
        if error is not None:
            entry["errors"] = [{"code": error, "title": "Failed", "error_data": {"details": "It failed."}}]
        return self.webhook(statuses=[entry])

    def webhook(
        self,
        *,
        messages: Sequence[Mapping[str, Any]] = (),
        statuses: Sequence[Mapping[str, Any]] = (),
        contacts: Sequence[Mapping[str, Any]] = (),
    ) -> Webhook:
        """A payload of this number with these elements."""
        value: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": self.display_phone_number, "phone_number_id": self.phone_number_id},
        }
        batches = {"contacts": contacts, "messages": messages, "statuses": statuses}
        value |= {key: list(batch) for key, batch in batches.items() if batch}
        entry = {"id": self.business_account_id, "changes": [{"value": value, "field": "messages"}]}
        return self.signed({"object": "whatsapp_business_account", "entry": [entry]})

    def signed(self, payload: Any) -> Webhook:
        """Any payload, written as Meta writes JSON (everything but ASCII escaped, slashes too) and signed."""
        body = json.dumps(payload, separators=(",", ":")).replace("/", "\\/").encode()
        digest = hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={digest}"}
        return Webhook(body, headers)


def _problem(content: Any) -> str:
    """What Meta would find wrong with the body of a send, '' if nothing."""
    if not isinstance(content, dict) or content.get("messaging_product") != "whatsapp":
        return "The parameter messaging_product is required."
    if content.get("status") == "read":
        return "" if content.get("message_id") else "The parameter message_id is required."
    to, recipient = content.get("to"), content.get("recipient")
    if not (isinstance(to, str) and to) and not (isinstance(recipient, str) and recipient):
        return "The parameter to is required."
    if to and not to.removeprefix("+").isdigit():
        return "The parameter to is not a phone number."
    if content.get("type") != "text" or not isinstance(content.get("text"), dict):
        return "The parameter text is required."
    body = content["text"].get("body")
    if not isinstance(body, str) or not body.strip():
        return "The parameter text['body'] is required."
    if len(body) > TEXT_LIMIT:
        return f"Param text['body'] must be at most {TEXT_LIMIT} characters long."
    return ""


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description="A fake of Meta's Graph API.")
    parser.add_argument("--phone-number-id", default="1234567890")
    parser.add_argument("--access-token", default="token")
    parser.add_argument("--app-secret", default="secret")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with FakeMeta(options.phone_number_id, options.access_token, options.app_secret, port=options.port) as meta:
        print(meta.base_url, flush=True)  # noqa: T201
        threading.Event().wait()


if __name__ == "__main__":
    main()
