"""SMS through Plivo passes the contract of all adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import ClassVar, cast
from urllib.parse import parse_qsl, urlencode

from channels_out.adapters import plivo
from channels_out.adapters.plivo_sms import PlivoSmsAdapter
from channels_out.contract import Account, Adapter, InboundRequest
from channels_out.events import Event, InboundMessage, Unhandled
from channels_out.simulators import plivo_payloads as payloads
from tests.channels_out.contract import SendContract, WebhookContract
from tests.fakes.plivo import FakePlivo
from tests.fakes.server import FakeServer

URL = "https://convo.example/webhooks/sms/inbound"
NUMBER = "14155550000"


def mangled(request: InboundRequest) -> Iterator[Mapping[str, str]]:
    """Return the request's headers with the signature or the nonce missing, cut, changed or elsewhere."""
    given, nonce = request.headers["x-plivo-signature-v3"], request.headers["x-plivo-signature-v3-nonce"]

    def headers(**changes: str) -> dict[str, str]:
        return {"x-plivo-signature-v3": given, "x-plivo-signature-v3-nonce": nonce} | {
            f"x-plivo-signature-{name.replace('_', '-')}": value for name, value in changes.items()
        }

    yield {}
    yield {"x-plivo-signature-v3": given}
    yield {"x-plivo-signature-v3-nonce": nonce}
    yield {"x-plivo-signature-v2": given, "x-plivo-signature-v2-nonce": nonce}
    for value in ("", given[:-1], given + "A", given.lower(), given.replace("=", ""), "é" * 44, "\udc80" * 44, ",,"):
        yield headers(v3=value)
    for value in ("", nonce + "0", nonce[::-1], "\udc80", "é"):
        yield headers(v3_nonce=value)


class TestPlivoSmsContract(WebhookContract, SendContract):
    adapter: ClassVar[Adapter] = PlivoSmsAdapter()
    SECRET = "auth_token"
    ADDRESS = NUMBER
    LONGEST_BODY = plivo.MAX_FORM_BYTES

    def request(self, body: bytes, secret: str) -> InboundRequest:
        content_type = "application/json" if body.startswith(b"{") else plivo.FORM
        try:
            signed = plivo.signed_by_v3("POST", URL, plivo.form(body))
        except Exception:
            signed = URL
        headers = {
            "content-type": content_type,
            "x-plivo-signature-v3": plivo.signature(secret, signed, "05429567804466091622", True),
            "x-plivo-signature-v3-nonce": "05429567804466091622",
        }
        return InboundRequest("POST", URL, headers, {}, body)

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        yield from mangled(request)

    def text_body(self) -> bytes:
        return urlencode(payloads.sms(sender="51999999999", to="+1 (415) 555-0000", text="Hello")).encode()

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        """Return a body with the one event that a post of Plivo's has."""
        form = payloads.sms(sender="MTN", to=NUMBER, text="Hello")
        return urlencode(form).encode(), [Unhandled], [NUMBER]

    def genuine_bodies(self) -> list[bytes]:
        forms = [
            payloads.sms(sender="51999999999", to=NUMBER, text="Hello", intent="optout"),
            payloads.sms(sender="51999999999", to=NUMBER, text="", media=["https://media.plivo.com/1"]),
            payloads.status(sender=NUMBER, to="51999999999", message_uuid="u", status="delivered", sequence=3),
            payloads.status(
                sender=NUMBER, to="51999999999", message_uuid="u", status="failed", sequence=3, error_code="30"
            ),
        ]
        return [json.dumps(form).encode() for form in forms]

    def test_the_longest_message_is_whole_and_a_longer_form_is_refused_unread(self) -> None:
        form = dict(parse_qsl(self.text_body().decode())) | {"Text": ""}
        room = plivo.MAX_FORM_BYTES - len(urlencode(form))
        (event,) = self.events(urlencode(form | {"Text": "x" * room}).encode())
        assert isinstance(event, InboundMessage)
        assert len(event.text) == room
        longer = self.request(urlencode(form | {"Text": "x" * (room + 1)}).encode(), "secret")
        assert self.adapter.claimed(longer) == []
        assert self.refused(longer, self.account("secret"))

    def fake(self) -> FakeServer:
        return FakePlivo(self.ADDRESS, auth_token="s3cret-token")

    def account_at(self, provider: FakeServer) -> Account:
        plivo_end = cast(FakePlivo, provider)
        return Account(self.ADDRESS, plivo_end.credentials, plivo_end.base_url, public_url="https://convo.example")

    def accepted(self, provider: FakeServer) -> list[str]:
        return [message.text for message in cast(FakePlivo, provider).sent]
