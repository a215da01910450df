"""360dialog passes the contract of all adapters. Its payloads are Meta's and are tested there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import pytest

from channels_out import registry
from channels_out.adapters.dialog360 import Dialog360Adapter
from channels_out.contract import Account, Adapter, InboundReference, InboundRequest, OutboundMessage
from channels_out.errors import SendError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled
from channels_out.kinds import AddressKind
from tests.channels_out.contract import SendContract, WebhookContract
from tests.channels_out.test_whatsapp_contract import PAYLOADS
from tests.fakes.dialog360 import FakeDialog360
from tests.fakes.server import FakeServer, Fault

ADAPTER = Dialog360Adapter()
MESSAGE = OutboundMessage("msg_1", "51999999999", AddressKind.PHONE, "Hello")


class TestDialog360Contract(WebhookContract, SendContract):
    adapter: ClassVar[Adapter] = ADAPTER
    SECRET = "webhook_secret"
    ADDRESS = "1234567890"
    SIGNS_BODY = False

    # It reads with the code of WhatsApp's adapter: once is enough.
    test_no_json_breaks_it = test_no_change_to_a_genuine_payload_breaks_it = test_no_bytes_break_it = None  # type: ignore[assignment]

    def request(self, body: bytes, secret: str) -> InboundRequest:
        headers = {"x-convo-secret": secret}
        return InboundRequest("POST", "https://convo.example/webhooks/whatsapp/inbound", headers, {}, body)

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        given = request.headers["x-convo-secret"]
        yield {}
        yield {"authorization": f"Bearer {given}"}
        for value in (
            "",
            " ",
            given[:-1],
            given + "0",
            given.upper(),
            f"{given},{given}",
            "é",
            "\udc80",
            given + "\x00",
        ):
            yield {"x-convo-secret": value}

    def text_body(self) -> bytes:
        return (PAYLOADS / "text.json").read_bytes()

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        types = [InboundMessage, InboundMessage, Unhandled, Receipt, Receipt, InboundMessage, Receipt]
        return (PAYLOADS / "batch.json").read_bytes(), types, ["1234567890", "2222222222", "3333333333"]

    def fake(self) -> FakeServer:
        return FakeDialog360(self.ADDRESS, api_key="d360-k3y")

    def account_at(self, provider: FakeServer) -> Account:
        credentials = {"api_key": "d360-k3y", "webhook_secret": "s3cret"}
        return Account(self.ADDRESS, credentials, cast(FakeDialog360, provider).base_url)

    def accepted(self, provider: FakeServer) -> list[str]:
        return [message.text for message in cast(FakeDialog360, provider).sent]


@pytest.fixture
def provider() -> Iterator[FakeDialog360]:
    with FakeDialog360() as provider:
        yield provider


def account(provider: FakeDialog360, **changes: Any) -> Account:
    return Account(
        **{"address": "1234567890", "credentials": {"api_key": "key"}, "base_url": provider.base_url} | changes
    )


def test_it_is_told_from_meta_even_where_metas_signature_is_passed_on() -> None:
    headers = {"x-convo-secret": "s", "x-hub-signature-256": "sha256=" + "0" * 64}
    request = InboundRequest("POST", "https://convo.example/", headers, {}, b"{}")
    found = registry.recognise("whatsapp", request)
    assert isinstance(found, Dialog360Adapter)


def test_it_sends_metas_content_with_its_own_key(provider: FakeDialog360) -> None:
    ADAPTER.send(account(provider), MESSAGE)
    (request,) = provider.requests
    assert request.path == "/messages"
    assert request.headers["d360-api-key"] == "key"
    assert "authorization" not in request.headers
    assert request.json()["biz_opaque_callback_data"] == "msg_1"


def test_it_marks_as_read(provider: FakeDialog360) -> None:
    ADAPTER.mark_read(account(provider), InboundReference("wamid.in1", "51999999999"), typing=True)
    assert [mark["message_id"] for mark in provider.marked] == ["wamid.in1"]


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (400, {"error": "Bad request"}, ("http_400", False, "", False)),
        (200, {"error": "Bad request"}, ("http_200", False, "", False)),
        (401, {"meta": {"success": False, "developer_message": "Invalid api_key"}}, ("http_401", False, "", True)),
        (401, {"error": "unauthorized"}, ("http_401", False, "", True)),
        (403, {"meta": {"developer_message": "The endpoint is blocked"}}, ("http_403", False, "", False)),
        (429, {"error": "Too many requests"}, ("http_429", True, "account", False)),
        (429, {"error": {"code": 613, "message": "x"}}, ("613", True, "account", False)),
        (403, {"error": {"code": 130429}}, ("130429", True, "account", False)),
        (403, {"error": {"code": 131056}}, ("131056", True, "recipient", False)),
        (400, {"error": {"code": 131053}}, ("131053", True, "", False)),
        (400, {"error": {"code": 250012}}, ("250012", False, "", False)),
        (500, {"error": "oops"}, ("http_500", True, "", False)),
    ],
)
def test_errors_in_every_shape(
    provider: FakeDialog360, status: int, content: Any, expected: tuple[str, bool, str, bool]
) -> None:
    provider.fail_next(Fault(status, content))
    with pytest.raises(SendError) as caught:
        ADAPTER.send(account(provider), MESSAGE)
    error = caught.value
    assert (error.code, error.retryable, error.throttled, error.account_broken) == expected


def test_its_credentials_can_be_checked(provider: FakeDialog360) -> None:
    assert ADAPTER.check(account(provider)) == "phone number 1234567890, available"
    for changes, code in [
        ({"credentials": {"api_key": "wrong"}}, "http_401"),
        ({"credentials": {}}, "no_credentials"),
        ({"address": "999"}, "other_number"),
    ]:
        with pytest.raises(SendError) as caught:
            ADAPTER.check(account(provider, **changes))
        assert (caught.value.code, caught.value.account_broken) == (code, True)
    assert provider.sent == []
