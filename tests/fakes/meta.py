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

A file that a person sent is put into `files`, under the id that the webhook names; the link that it gives works once.
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
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

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
    content: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "text"
    file: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
        self.state: dict[str, Any] = {"status": "CONNECTED", "quality_rating": "GREEN", "name_status": "APPROVED"}
        self.templates: list[dict[str, Any]] = []
        self.subscribed: list[dict[str, Any]] = []
        self.known_as: dict[str, dict[str, str]] = {}  # by `to`: the recipient's `wa_id` and `user_id`
        self.uploads: list[bytes] = []  # the forms by which files were uploaded: the first is "up1"
        self.files: dict[str, tuple[bytes, str]] = {}  # media id: content, and its type as the sender says
        self.announced: dict[str, int] = {}  # media id: a size that is not the content's
        self.dead: set[str] = set()  # media ids whose links answer 404
        self.links: dict[str, str] = {}
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
        if request.path.startswith("/attachments/"):
            return self.download(request)
        version, _, path = request.path.partition("?")[0].lstrip("/").partition("/")
        number, _, route = path.partition("/")
        if request.method == "GET" and route in ("message_templates", "subscribed_apps"):
            return self._business(request, version, number, route)
        if request.method == "GET" and version == VERSION and number in self.files and not route:
            return self.link(request, number)
        if version != VERSION or (request.method, route) not in {("POST", "messages"), ("POST", "media"), ("GET", "")}:
            return Reply(404, error_content(2500, "Unknown path components"))
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, error_content(190, f"Malformed access token {request.headers.get('authorization')}"))
        if number != self.phone_number_id:
            return Reply(400, error_content(100, f"Object with ID '{number}' does not exist"))
        if request.method == "GET":
            names = {"verified_name": "The shop", "display_phone_number": f"+{whatsapp.DISPLAY_PHONE_NUMBER}"}
            return Reply(200, {**names, **self.state, "id": number})
        if route == "media":
            return self.upload(request)
        return self.take(request.json())

    def _business(self, request: Received, version: str, business: str, route: str) -> Reply:
        """Answer a question about the business account."""
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, error_content(190, "Malformed access token"))
        if version != VERSION or business != whatsapp.BUSINESS_ACCOUNT:
            return Reply(400, error_content(100, f"Object with ID '{business}' does not exist"))
        if route == "subscribed_apps":
            return Reply(200, {"data": list(self.subscribed)})
        query = dict(parse_qsl(request.path.partition("?")[2]))
        return Reply(200, whatsapp.page_of_templates(self.templates, query))

    def link(self, request: Received, media_id: str) -> Reply:
        """Return the answer to the question for a file: a link that nobody else knows."""
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, error_content(190, "Malformed access token"))
        body, content_type = self.files[media_id]
        token = secrets.token_hex(8)
        with self.lock:
            self.links[token] = media_id
        size = self.announced.get(media_id, len(body))
        known = {"id": media_id, "mime_type": content_type, "file_size": size, "messaging_product": "whatsapp"}
        return Reply(200, {**known, "sha256": sha256(body).hexdigest(), "url": f"{self.url}/attachments/?mid={token}"})

    def download(self, request: Received) -> Reply:
        """Return the file behind a link, once per link, as if each ran out at once."""
        with self.lock:
            media_id = self.links.pop(request.path.partition("mid=")[2], "")
        if media_id in self.dead or media_id not in self.files:
            return Reply(404, b"URL signature expired")
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, b"")
        body, content_type = self.files[media_id]
        return Reply(200, body, {"Content-Type": content_type})

    def upload(self, request: Received) -> Reply:
        """Return the id of a file that was uploaded."""
        if b'name="messaging_product"' not in request.body or b'name="file"' not in request.body:
            return Reply(400, error_content(100, "Invalid parameter"))
        with self.lock:
            self.uploads.append(request.body)
            return Reply(200, {"id": f"up{len(self.uploads)}"})

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
            text=whatsapp.text_of(content),
            reply_to=content.get("context", {}).get("message_id", ""),
            our_message_id=content.get("biz_opaque_callback_data", ""),
            file=content.get(content.get("type", ""), {}) if content.get("type") in whatsapp.SENT_MEDIA else {},
            kind=content.get("type", ""),
            template=f"{template['name']} {template['language']['code']}" if template else "",
            content=content,
        )
        with self.lock:
            self.sent.append(message)
        return Reply(200, whatsapp.accepted(content, message.wamid, **self.known_as.get(message.to, {})))

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
