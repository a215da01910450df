"""WhatsApp passes the contract of all adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, cast

from channels_out.adapters import meta
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, Adapter, InboundRequest
from channels_out.events import Event, InboundMessage, Receipt, Unhandled
from tests.channels_out.contract import SendContract, WebhookContract
from tests.fakes.meta import FakeMeta
from tests.fakes.server import FakeServer

PAYLOADS = Path(__file__).parent.parent / "payloads" / "whatsapp"


class TestWhatsAppContract(WebhookContract, SendContract):
    adapter: ClassVar[Adapter] = WhatsAppAdapter()
    SECRET = "app_secret"
    ADDRESS = "1234567890"

    def request(self, body: bytes, secret: str) -> InboundRequest:
        headers = {"x-hub-signature-256": meta.signature(secret, body)}
        return InboundRequest("POST", "https://convo.example/webhooks/whatsapp/inbound", headers, {}, body)

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        given = request.headers["x-hub-signature-256"]
        digest = given.removeprefix("sha256=")
        yield {}
        yield {"x-hub-signature": given}
        for value in (
            "",
            "sha256=",
            digest,
            given[:-1],
            given + "0",
            given + " ",
            f"{given},{given}",
            f"{given}, sha256={'0' * 64}",
            f"sha1={digest}",
            "sha256=" + digest.upper(),
            "SHA256=" + digest,
            "sha256=" + "é" * 64,
            "sha256=" + "\udc80" * 64,
            "sha256=" + "\u0660" * 64,
            "sha256=" + "0" * 64,
        ):
            yield {"x-hub-signature-256": value}

    def text_body(self) -> bytes:
        return (PAYLOADS / "text.json").read_bytes()

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        types = [InboundMessage, InboundMessage, Unhandled, Receipt, Receipt, InboundMessage, Receipt]
        return (PAYLOADS / "batch.json").read_bytes(), types, ["1234567890", "2222222222", "3333333333"]

    def genuine_bodies(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(PAYLOADS.glob("*.json"))]

    def fake(self) -> FakeServer:
        return FakeMeta(self.ADDRESS, access_token="EAAB-bearer")

    def account_at(self, provider: FakeServer) -> Account:
        credentials = {"access_token": "EAAB-bearer", "app_secret": "s3cret", "verify_token": "v3rify"}
        return Account(self.ADDRESS, credentials, cast(FakeMeta, provider).base_url)

    def accepted(self, provider: FakeServer) -> list[str]:
        return [message.text for message in cast(FakeMeta, provider).sent]
