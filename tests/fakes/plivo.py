"""Plivo's messaging API over real HTTP on a loopback port, and its posts to us.

    with FakePlivo(number="14155550000") as plivo:
        account = Account("14155550000", plivo.credentials, base_url=plivo.base_url)
        ... send ...
        plivo.sent[0].text

It checks auth id, token and body as Plivo does and remembers what it accepted (`sent`, in order; a message sent twice
is there twice). It fails as told, see `fakes.server.Fault`, and

    plivo.error_next(402)            an error as Plivo writes it

It writes what Plivo posts, signed (nothing is posted by itself: `body` and `headers` go to `path`):

    webhook = plivo.sms("Hello", sender="51999999999")
    webhook = plivo.status(plivo.sent[0], "delivered", sequence=2)
    webhook = plivo.answer_url("call-1")
    webhook = plivo.turn("/webhooks/voice/inbound?turn=1", "call-1", "Where is my parcel?")
    webhook = plivo.hang_up("call-1")
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from channels_out.simulators import plivo_payloads as payloads
from tests.fakes.server import FakeServer, Fault, Received, Reply

PUBLIC_URL = "https://convo.example"
CALLER = "51999999999"


@dataclass(frozen=True)
class Sent:
    """A message that Plivo accepted, and the address for its status."""

    message_uuid: str
    source: str
    to: str
    text: str
    url: str
    media: tuple[str, ...] = ()


@dataclass(frozen=True)
class Webhook:
    """A webhook as Plivo posts it."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"


class FakePlivo(FakeServer):
    """One number of one Plivo account."""

    def __init__(
        self,
        number: str = "14155550000",
        auth_id: str = "MANDE3ZJJKNJM5OGY5ZJ",
        auth_token: str = "token-of-plivo",
        public_url: str = PUBLIC_URL,
        port: int = 0,
    ) -> None:
        self.number, self.auth_id, self.auth_token = number, auth_id, auth_token
        self.public_url = public_url
        self.sent: list[Sent] = []
        super().__init__(port)

    @property
    def credentials(self) -> dict[str, str]:
        """The credentials of an account."""
        return {"auth_id": self.auth_id, "auth_token": self.auth_token}

    @property
    def base_url(self) -> str:
        """The base URL for an account."""
        return f"{self.url}/v1"

    def error_next(self, status: int, times: int = 1, **headers: str) -> None:
        """Answer with an error as Plivo writes it."""
        self.fail_next(Fault(status, _error("an error"), headers), times)

    def handle(self, request: Received) -> Reply:
        """Answer as the API does."""
        pair = base64.b64encode(f"{self.auth_id}:{self.auth_token}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {pair}":
            return Reply(401, _error("authentication failed"))
        path = request.path.removeprefix(f"/v1/Account/{self.auth_id}")
        if request.method == "GET" and path == "/":
            return Reply(200, {"api_id": payloads.new_uuid(), "auth_id": self.auth_id, "name": "The shop"})
        if (request.method, path) != ("POST", "/Message/"):
            return Reply(404, _error("not found"))
        content = request.json()
        if problem := payloads.problem_of(content):
            return Reply(400, _error(problem))
        message = Sent(
            *(payloads.new_uuid(), content["src"], content["dst"], content["text"], str(content.get("url", ""))),
            tuple(content.get("media_urls", ())),
        )
        with self.lock:
            self.sent.append(message)
        answer = {"api_id": payloads.new_uuid(), "message": "message(s) queued", "message_uuid": [message.message_uuid]}
        return Reply(202, answer)

    # --- what it posts

    def sms(self, text: str, *, sender: str = CALLER, to: str = "", **more: Any) -> Webhook:
        """Return a person's SMS or MMS."""
        return self.post("/webhooks/sms/inbound", payloads.sms(sender=sender, to=to or self.number, text=text, **more))

    def status(self, message: Sent, status: str, *, sequence: int, error_code: str = "") -> Webhook:
        """Return the status of a message that it accepted."""
        address = urlsplit(message.url)
        form = payloads.status(
            sender=message.source,
            to=message.to,
            message_uuid=message.message_uuid,
            status=status,
            sequence=sequence,
            error_code=error_code,
        )
        return self.post(f"{address.path}?{address.query}", form)

    def answer_url(self, call: str, *, caller: str = CALLER, **more: Any) -> Webhook:
        """Return the request to the answer URL."""
        return self.turn("/webhooks/voice/inbound", call, caller=caller, **more)

    def turn(self, path: str, call: str, words: str = "", *, caller: str = CALLER, **more: Any) -> Webhook:
        """Return the next request of a call to our address: the caller's words, or without words their silence."""
        who = {"caller": caller, "to": self.number, "call_uuid": call}
        return self.post(path, payloads.speech(words=words, **who, **more) if words else payloads.call(**who))

    def hang_up(self, call: str, *, caller: str = CALLER, **more: Any) -> Webhook:
        """Return the request to the hang-up URL."""
        form = payloads.hang_up(caller=caller, to=self.number, call_uuid=call, **more)
        return self.post("/webhooks/voice/status", form)

    def post(self, path: str, form: Mapping[str, str], **how: Any) -> Webhook:
        """Return a POST of any form, signed, to any path of ours."""
        body, headers = payloads.signed(form, url=self.public_url + path, **{"token": self.auth_token, **how})
        return Webhook(path, body, headers)

    def get(self, path: str, form: Mapping[str, str]) -> Webhook:
        """Return the same as a GET, for an application that is set to GET."""
        path = f"{path}{'&' if '?' in path else '?'}{urlencode(form)}"
        body, headers = payloads.signed({}, url=self.public_url + path, token=self.auth_token, method="GET")
        return Webhook(path, body, headers, "GET")


def _error(sentence: str) -> dict[str, str]:
    return {"api_id": payloads.new_uuid(), "error": sentence}
