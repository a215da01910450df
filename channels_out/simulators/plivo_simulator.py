"""The simulators of a Plivo number, for SMS and for calls."""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree as ET

from channels_out.adapters.plivo_voice import TRANSFER
from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError
from channels_out.http import HttpAnswer
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import text
from channels_out.simulators import plivo_payloads as payloads
from channels_out.simulators.contract import (
    AcceptedMessage,
    InjectedFault,
    SimulatedMessage,
    SimulatedResponse,
    Simulator,
    SpokenInstruction,
    UnsignedWebhook,
)
from channels_out.simulators.people import SimulatedPerson

SMS_PATH = "/webhooks/sms/inbound"
CALL_PATH = "/webhooks/voice/inbound"
HANG_UP_PATH = "/webhooks/voice/status"

_ROUTE = re.compile(r"(?:/v1)?/Account/(?P<auth_id>[A-Za-z0-9]+)/(?P<resource>Message/)?")
_STATUSES = {ReceiptStatus.DELIVERED: ("delivered", ""), ReceiptStatus.FAILED: ("undelivered", "50")}
_REFUSALS = {
    InjectedFault.THROTTLED: (429, "too many requests"),
    InjectedFault.UNDELIVERABLE: (400, "dst parameter is invalid"),
    InjectedFault.REFUSED: (401, "authentication failed"),
}


class PlivoNumber(Simulator):
    """A number at Plivo: the account, the signature and the API."""

    provider = "plivo"

    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return a number that is reserved for fiction, and the credentials from Plivo's console."""
        number = f"1{200 + secrets.randbelow(800)}555{secrets.randbelow(100) + 100:04}"
        auth_id = "MA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(18))
        return number, {"auth_id": auth_id, "auth_token": secrets.token_urlsafe(30)}

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the phone number; Plivo hides none."""
        return person.phone

    def new_message_id(self) -> str:
        """Return a new UUID."""
        return payloads.new_uuid()

    def form(self, path: str, fields: payloads.Form) -> UnsignedWebhook:
        """Return a webhook with a form."""
        return UnsignedWebhook(path, urlencode(fields).encode(), payloads.FORM)

    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """Return the headers of signature V3 by the auth token."""
        fields = dict(parse_qsl(webhook.body.decode(), keep_blank_values=True))
        _, headers = payloads.signed(fields, url=url, token=account.secrets("auth_token")[0])
        return {name: value for name, value in headers.items() if name != "Content-Type"}

    # --- the API

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request has the auth id and token."""
        pair = f"{account.credentials.get('auth_id', '')}:{account.credentials.get('auth_token', '')}"
        expected = b"Basic " + base64.b64encode(pair.encode())
        return hmac.compare_digest(request.headers.get("authorization", "").encode("utf-8", "replace"), expected)

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request is a message."""
        return request.method == "POST"

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message, or the account's record."""
        route = _ROUTE.fullmatch(request.url.partition("?")[0])
        if route is None or route["auth_id"] != account.credentials.get("auth_id"):
            return _error(404, "not found")
        if (request.method, route["resource"]) == ("GET", None):
            named = {"auth_id": route["auth_id"], "name": "Simulated account"}
            return SimulatedResponse(body=json.dumps({"api_id": payloads.new_uuid(), **named}))
        if (request.method, route["resource"]) != ("POST", "Message/"):
            return _error(404, "not found")
        return self.take(account, request)

    def take(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message."""
        try:
            content = request.json()
        except InboundError:
            content = None
        if problem := payloads.problem_of(content):
            return _error(400, problem)
        taken = AcceptedMessage(
            message_id=payloads.new_uuid(),
            to=text(content, "dst"),
            text=text(content, "text") or ("[media]" if content.get("media_urls") else ""),
            report_to=_path(text(content, "url")),
        )
        told = {"message": "message(s) queued", "message_uuid": [taken.message_id]}
        return SimulatedResponse(202, json.dumps({"api_id": payloads.new_uuid(), **told}), taken=taken)

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return Plivo's error."""
        status, sentence = _REFUSALS.get(fault, (500, "internal server error"))
        headers = {"Retry-After": "2"} if fault is InjectedFault.THROTTLED else {}
        answer = _error(status, sentence)
        return SimulatedResponse(answer.status, answer.body, headers=headers)


class PlivoSmsSimulator(PlivoNumber):
    """SMS. A phone reports that it received a message, and not that the person read it."""

    channel = Channel.SMS
    receipts = (ReceiptStatus.DELIVERED, ReceiptStatus.FAILED)

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the webhook with an SMS."""
        fields = payloads.sms(sender=person.phone, to=account.address, text=said.text, message_uuid=said.message_id)
        return self.form(SMS_PATH, fields)

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """Return a status, posted to the address that the send named."""
        word, code = _STATUSES[status]
        fields = payloads.status(
            sender=account.address,
            to=taken.to,
            message_uuid=taken.message_id,
            status=word,
            sequence=taken.sequence + 2,
            error_code=code,
        )
        return self.form(taken.report_to, fields)


class PlivoVoiceSimulator(PlivoNumber):
    """Calls. The caller's words are posted to the address in our last response."""

    channel = Channel.VOICE
    receipts = ()
    faults = ()
    is_call = True

    def call(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """Return the request to the answer URL."""
        return self.form(CALL_PATH, payloads.call(caller=person.phone, to=account.address, call_uuid=call))

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the request with the caller's words."""
        fields = payloads.speech(caller=person.phone, to=account.address, call_uuid=said.call, words=said.text)
        return self.form(said.path, fields)

    def continuation(self, account: Account, person: SimulatedPerson, call: str, path: str) -> UnsignedWebhook:
        """Return the request of a redirect, or that nobody answered where the call was transferred to."""
        form = payloads.call(caller=person.phone, to=account.address, call_uuid=call)
        nobody = {"DialStatus": "no-answer", "DialHangupCause": "NO_ANSWER"} if f"{TRANSFER}=1" in path else {}
        return self.form(path, {**form, **nobody})

    def hang_up(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """Return the request to the hang-up URL."""
        return self.form(HANG_UP_PATH, payloads.hang_up(caller=person.phone, to=account.address, call_uuid=call))

    def take(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return a 404: nothing is sent to a caller."""
        return _error(404, "not found")

    def heard(self, answer: HttpAnswer) -> SpokenInstruction:
        """Return the instruction in our XML. An invalid response ends the call."""
        try:
            response = ET.fromstring(answer.body) if answer.ok else None  # noqa: S314 - our own answer # nosec B314
        except ET.ParseError:
            response = None
        if response is None or response.tag != "Response":
            return SpokenInstruction(over=True)
        asked, redirect = response.find("GetInput"), response.find("Redirect")
        speaking = response if asked is None else asked
        words = "\n".join(each.text or "" for each in speaking.findall("Speak"))
        onward = _path(redirect.text or "") if redirect is not None else ""
        if asked is not None:
            return SpokenInstruction(words, path=_path(asked.get("action", "")), silence=onward)
        if (dial := response.find("Dial")) is not None:
            ringing = f"(It rings at {dial.findtext('Number', '')}.)"
            said = "\n".join(filter(None, (words, ringing)))
            return SpokenInstruction(said, path=_path(dial.get("action", "")), at_once=True, wait=2)
        if not onward or response.find("Hangup") is not None:
            return SpokenInstruction(words, over=True)
        pause = response.find("Wait")
        return SpokenInstruction(
            words, path=onward, at_once=True, wait=_seconds(pause.get("length", "")) if pause is not None else 0
        )


def _path(url: str) -> str:
    """Return the address as our own server knows it, without the host and without a proxy's path prefix."""
    parts = urlsplit(url)
    path = parts.path[max(parts.path.find("/webhooks/"), 0) :]
    return f"{path}?{parts.query}" if parts.query else path


def _seconds(length: str) -> float:
    return min(float(length), 10.0) if length.isascii() and length.isdigit() else 1.0


def _error(status: int, sentence: str) -> SimulatedResponse:
    return SimulatedResponse(status, json.dumps({"api_id": payloads.new_uuid(), "error": sentence}))
