"""Messenger passes the contract of all adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from channels_out.adapters import meta
from channels_out.adapters.messenger import MessengerAdapter
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage
from channels_out.events import Event, InboundMessage, Receipt, Unhandled, WatermarkReceipt
from channels_out.kinds import AddressKind
from channels_out.simulators import messenger
from channels_out.simulators.meta import meta_json
from tests.channels_out.contract import SendContract, WebhookContract
from tests.channels_out.test_whatsapp_contract import TestWhatsAppContract as WhatsAppContract
from tests.fakes.messenger import FakeMessenger
from tests.fakes.server import FakeServer

PAGE, OTHER_PAGE, ANA = "1234567890", "2222222222", "5678"
AT = 1754119029000
OURS = "7d444840-9dc0-11d1-b245-5ffdce74fad2"

TEXT = messenger.text(PAGE, ANA, "Hello, is my order on its way?", mid="m_in1", at=AT)
EVERYTHING: list[Any] = [
    TEXT,
    messenger.message(PAGE, ANA, mid="m_in2", at=AT, attachments=[messenger.attachment("image")]),
    messenger.message(PAGE, ANA, mid="m_in3", at=AT, text="Yes", quick_reply={"payload": "yes-7"}),
    messenger.postback(PAGE, ANA, "Get started", "START", mid="m_in4", at=AT),
    messenger.postback(PAGE, ANA, "Get started", "START", at=AT),
    messenger.echo(PAGE, ANA, "Hi", mid="m_out1", metadata=OURS),
    messenger.echo(PAGE, ANA, "Typed in the inbox", mid="m_out2"),
    messenger.delivery(PAGE, ANA, mids=["m_out1", "m_out2"], watermark=AT),
    messenger.delivery(PAGE, ANA, watermark=AT),
    messenger.read(PAGE, ANA, watermark=AT),
    {"sender": {"id": ANA}, "recipient": {"id": PAGE}, "timestamp": AT, "reaction": {"mid": "m_out1", "emoji": "👍"}},
    {"sender": {"id": ANA}, "recipient": {"id": PAGE}, "timestamp": AT, "hologram": {}},
    {"recipient": {"id": PAGE}, "timestamp": AT, "message": {"mid": "m_in5", "text": "Who am I?"}},
    "junk",
]
TYPES: list[type[Event]] = [
    *[InboundMessage] * 5,
    *(Receipt, Unhandled, Receipt, Receipt, WatermarkReceipt, WatermarkReceipt),
    *[Unhandled] * 4,
]


class TestMessengerContract(WebhookContract, SendContract):
    adapter: ClassVar[Adapter] = MessengerAdapter()
    SECRET = "app_secret"
    ADDRESS = PAGE

    def request(self, body: bytes, secret: str) -> InboundRequest:
        headers = {"x-hub-signature-256": meta.signature(secret, body)}
        return InboundRequest("POST", "https://convo.example/webhooks/messenger/inbound", headers, {}, body)

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        yield from WhatsAppContract().bad_signatures(request)

    def text_body(self) -> bytes:
        return meta_json(messenger.payload(PAGE, TEXT))

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        entries = [
            messenger.entry(PAGE, *EVERYTHING),
            messenger.entry(OTHER_PAGE, messenger.text(OTHER_PAGE, ANA, "To another tenant", mid="m_in6")),
            messenger.entry("3333333333", messenger.text("3333333333", ANA, "Not to us", mid="m_in7"), key="standby"),
            {"id": PAGE, "time": AT, "changes": [{"field": "feed", "value": {}}]},
            {"id": PAGE, "time": AT},
        ]
        body = meta_json({"object": "page", "entry": entries})
        return body, [*TYPES, InboundMessage, Unhandled, Unhandled, Unhandled], [PAGE, OTHER_PAGE, "3333333333"]

    def fake(self) -> FakeServer:
        return FakeMessenger(PAGE, access_token="EAAB-bearer")

    def account_at(self, provider: FakeServer) -> Account:
        credentials = {"access_token": "EAAB-bearer", "app_secret": "s3cret", "verify_token": "v3rify"}
        return Account(PAGE, credentials, cast(FakeMessenger, provider).base_url)

    def message(self, text: str = "Hello", message_id: str = "msg_1") -> OutboundMessage:
        return OutboundMessage(message_id, ANA, AddressKind.PSID, text)

    def accepted(self, provider: FakeServer) -> list[str]:
        return [message.text for message in cast(FakeMessenger, provider).sent]
