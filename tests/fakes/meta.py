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

A GET of the number with the token gives its names. What was marked read, with or without a typing
indicator, is in `marked`.

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
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from channels_out.simulators import whatsapp
from channels_out.simulators.meta import SignedWebhook, graph_error, signed_by_meta
from channels_out.simulators.whatsapp import new_wamid
from tests.fakes.server import FakeServer, Fault, Received, Reply

VERSION = "v25.0"


@dataclass(frozen=True)
class Sent:
    """A message that Meta accepted. `to` is a phone number or a business-scoped user id; of a template there is no
    text but its name and language."""

    wamid: str
    to: str
    text: str
    reply_to: str
    our_message_id: str
    template: str = ""


def error_content(code: int, message: str = "An error", details: str = "") -> dict[str, Any]:
    """Return the body of an error answer."""
    return graph_error(code, message, details=details or "Details")


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
        self.sent: list[Sent] = []
        self.marked: list[dict[str, Any]] = []
        super().__init__(port)

    # --- the API

    def answer(self, request: Received) -> tuple[Reply | None, Fault]:
        """Keep control requests out of the record."""
        return (self._control(request), Fault()) if request.path.startswith("/_fake/") else super().answer(request)

    @property
    def base_url(self) -> str:
        """The base URL for an account."""
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
            names = {"verified_name": "The shop", "display_phone_number": f"+{whatsapp.DISPLAY_PHONE_NUMBER}"}
            return Reply(200, {**names, "id": number})
        return self.take(request.json())

    def take(self, content: Any) -> Reply:
        """Return the answer of the send route to a body."""
        if problem := whatsapp.problem(content):
            return Reply(400, error_content(100, "Invalid parameter", problem))
        if content.get("status") == "read":
            with self.lock:
                self.marked.append(content)
            return Reply(200, {"success": True})
        template = content.get("template", {})
        message = Sent(
            wamid=new_wamid(),
            to=content.get("to") or content["recipient"],
            text=content.get("text", {}).get("body", ""),
            reply_to=content.get("context", {}).get("message_id", ""),
            our_message_id=content.get("biz_opaque_callback_data", ""),
            template=f"{template['name']} {template['language']['code']}" if template else "",
        )
        with self.lock:
            self.sent.append(message)
        return Reply(200, whatsapp.accepted(content, message.wamid))

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
    ) -> SignedWebhook:
        """Return the webhook with a person's text. `message_id` is new unless given; `timestamp` is now, in seconds."""
        message = whatsapp.text(text, sender=sender, message_id=message_id, timestamp=timestamp)
        return self.webhook(messages=[message], contacts=[whatsapp.contact(sender, name)])

    def status_webhook(
        self, message: Sent, status: str, *, error: int | None = None, timestamp: float | None = None
    ) -> SignedWebhook:
        """Return the webhook with a status: sent, delivered, read, failed (with a code), played."""
        about = {"recipient": message.to, "our_message_id": message.our_message_id}
        return self.webhook(
            statuses=[whatsapp.status(message.wamid, status, error=error, timestamp=timestamp, **about)]
        )

    def webhook(
        self,
        *,
        messages: Sequence[Mapping[str, Any]] = (),
        statuses: Sequence[Mapping[str, Any]] = (),
        contacts: Sequence[Mapping[str, Any]] = (),
    ) -> SignedWebhook:
        """Return the webhook with messages and statuses of this number."""
        batches = {"messages": messages, "statuses": statuses, "contacts": contacts}
        return self.signed(whatsapp.payload(self.phone_number_id, **batches))

    def signed(self, payload: Any) -> SignedWebhook:
        """Return any payload, as Meta writes and signs it."""
        return signed_by_meta(payload, self.app_secret)


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
