"""The orb passes the contract of all adapters, agrees with the published package, and reaches public addresses only."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import pytest
from standardwebhooks.webhooks import Webhook

from channels_out import http, standard_webhooks
from channels_out.adapters.orb import OrbAdapter
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage
from channels_out.errors import InboundError, SendError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.simulators import orb
from tests.channels_out.contract import SendContract, WebhookContract
from tests.fakes.orb import FakeGateway
from tests.fakes.server import FakeServer, Fault

URL = "https://convo.example/webhooks/orb/inbound"
LOOPBACK = ("127.0.0.0/8",)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def encoded(secret: str) -> str:
    """Return each word of a credential in the form of a secret."""
    return re.sub(r"[^\s,]+", lambda word: "whsec_" + base64.b64encode(word[0].encode()).decode(), secret)


class TestOrbContract(WebhookContract, SendContract):
    adapter: ClassVar[Adapter] = OrbAdapter()
    SECRET = "secret"
    ADDRESS = "kitchen"

    def request(self, body: bytes, secret: str) -> InboundRequest:
        words = ["whsec_" + base64.b64encode(secret.encode()).decode()]
        return InboundRequest("POST", URL, standard_webhooks.headers(words, "msg_1", body), {}, body)

    def account(self, secret: str) -> Account:
        return Account(self.ADDRESS, {self.SECRET: encoded(secret)})

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        good = dict(request.headers)
        signature = good["webhook-signature"]
        yield {}
        for name in good:
            yield {key: value for key, value in good.items() if key != name}
        for value in (
            "",
            "v1",
            "v1,",
            "v1,abc",
            signature[3:],
            signature[:-1],
            signature + "=",
            signature.replace("v1,", "v2,"),
            signature.replace("v1,", "V1,"),
            signature.replace("v1,", "v1a,"),
            signature.replace(",", ", "),
            f"{signature},{signature}",
            "v1,é",
            "v1,\udc80",
            " ",
        ):
            yield {**good, "webhook-signature": value}
        for value in ("", "now", "-1", "1e9", "1.5", " 1", "\u0660", "9" * 30, str(int(time.time()) - 301)):
            yield {**good, "webhook-timestamp": value}
        yield {**good, "webhook-timestamp": str(int(time.time()) + 301)}
        for value in ("", "msg_2", "msg_1 ", "\udc80", "x" * 300):
            yield {**good, "webhook-id": value}

    def text_body(self) -> bytes:
        return json.dumps(orb.said(self.ADDRESS, "orb-7", "Hello", message_id="m1")).encode()

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        return json.dumps(orb.event("orb.danced", self.ADDRESS, {})).encode(), [Unhandled], [self.ADDRESS]

    def genuine_bodies(self) -> list[bytes]:
        more = {"user_id": "ann", "phone": "+51999999999", "name": "Ann", "metadata": {"room": "kitchen"}}
        events = [
            orb.said(self.ADDRESS, "orb-7", "Hello", **more),
            *(orb.receipt(self.ADDRESS, status, "m1", code="1") for status in ("delivered", "read", "failed")),
            orb.event(orb.GATEWAY_CHECK, self.ADDRESS, {}),
        ]
        return [json.dumps(event).encode() for event in events]

    def fake(self) -> FakeServer:
        return FakeGateway(self.ADDRESS, SECRET)

    def account_at(self, provider: FakeServer) -> Account:
        return Account(self.ADDRESS, {"secret": SECRET}, provider.url, private_networks=LOOPBACK)

    def accepted(self, provider: FakeServer) -> list[str]:
        events = cast(FakeGateway, provider).said
        return [event["data"]["content"]["text"] for event in events]

    def message(self, text: str = "Hello", message_id: str = "") -> OutboundMessage:
        return OutboundMessage(message_id or orb.new_id(), "orb-7", AddressKind.DEVICE, text)

    # --- where the orb is different

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b'"x"', b"[" * 100_000, b"\xff"])
    def test_a_success_without_sense_is_ambiguous(self, provider: FakeServer, content: bytes) -> None:
        """Skip: in Standard Webhooks any 2xx accepts the message, whatever its body."""
        provider.fail_next(Fault(status=200, content=content))
        assert self.adapter.send(self.account_at(provider), self.message("Hi", "m1")).provider_message_id == "m1"

    def test_after_a_failure_the_next_message_goes(self, provider: FakeServer) -> None:
        for fault in (Fault(cut="before"), Fault(cut="body"), Fault(status=500)):
            self.failure(provider, fault)
            self.adapter.send(self.account_at(provider), self.message("again"))
        assert self.accepted(provider).count("again") == 3

    def test_the_same_message_has_the_same_id_and_is_taken_once(self, provider: FakeServer) -> None:
        message = self.message("Hello", "m1")
        provider.fail_next(Fault(cut="after"))
        with pytest.raises(SendError) as caught:
            self.adapter.send(self.account_at(provider), message)
        assert (caught.value.ambiguous, self.adapter.sends_idempotently) == (True, True)
        assert self.adapter.send(self.account_at(provider), message).provider_message_id == "m1"
        assert self.accepted(provider) == ["Hello"]
        assert cast(FakeGateway, provider).posts == {"m1": 2}


# --- agreement with the published package
def test_the_published_vector() -> None:
    body = b'{"test": 2432232314}'
    given = standard_webhooks.headers([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", body, at=1614265330)
    assert given["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    standard_webhooks.verify(given, body, [SECRET], now=1614265330 + 299)
    for now in (1614265330 + 301, 1614265330 - 301):
        with pytest.raises(InboundError):
            standard_webhooks.verify(given, body, [SECRET], now=now)


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), "whsec_" + "QUJD" * 20])
@pytest.mark.parametrize("text", ["Hello", "línea 👨‍👩‍👧", '"\\'])
def test_what_we_sign_the_package_verifies_and_the_other_way_round(secret: str, text: str) -> None:
    body = json.dumps(orb.said("kitchen", "orb-7", text), ensure_ascii=False).encode()
    package = Webhook(secret)
    ours = standard_webhooks.headers(["whsec_c29tZXRoaW5nIG9sZA==", secret], "msg_1", body)
    assert package.verify(body, ours) == json.loads(body)

    from datetime import UTC, datetime

    now = datetime.now(UTC)
    signature = package.sign("msg_2", now, body.decode())
    theirs = {"webhook-id": "msg_2", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    standard_webhooks.verify(theirs, body, ["whsec_c29tZXRoaW5nIG9sZA==", secret])
    theirs["webhook-signature"] = f"v1,bm9uZQ== v2,x {signature}"
    standard_webhooks.verify(theirs, body, [secret])


# --- inbound
def parsed(event: Any, message_id: str = "evt_1") -> Event:
    body, headers = orb.signed(event, SECRET, event_id=message_id)
    [found] = OrbAdapter().parse(InboundRequest("POST", URL, headers, {}, body))
    return found


def test_a_message_says_who_and_when() -> None:
    more = {"user_id": "ann", "phone": "+51 999 999 999", "name": " Ann\n", "metadata": {"room": "kitchen"}}
    event = orb.said("kitchen", "orb-7", "Lights on", message_id="m1", kind="speech", **more)
    event["timestamp"] = "2026-05-01T10:00:00+02:00"
    found = parsed(event)
    assert isinstance(found, InboundMessage)
    assert (found.account, found.message_id, found.kind, found.text) == ("kitchen", "m1", "speech", "Lights on")
    sender = found.sender
    assert (sender.address, sender.kind, sender.phone, sender.name) == ("orb-7", "device", "+51999999999", "Ann")
    assert sender.aliases == ((AddressKind.USER, "ann"),)
    assert found.occurred_at
    assert found.occurred_at.isoformat() == "2026-05-01T08:00:00+00:00"
    assert found.metadata == {"room": "kitchen"}


def test_a_message_without_an_id_is_known_by_that_of_its_webhook() -> None:
    event = orb.said("kitchen", "orb-7", "Hello")
    del event["data"]["message_id"]
    found = parsed(event, "evt_9")
    assert isinstance(found, InboundMessage)
    assert found.message_id == "evt_9"


@pytest.mark.parametrize("status", ["delivered", "read", "failed"])
def test_receipts(status: str) -> None:
    found = parsed(orb.receipt("kitchen", status, "m1", code="unplugged", reason="It has no power."))
    assert isinstance(found, Receipt)
    assert (found.status, found.provider_message_id, found.our_message_id) == (ReceiptStatus(status), "m1", "m1")
    assert (found.code, found.reason) == ("unplugged", "It has no power.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "orb.danced"}, "unknown_type"),
        ({"type": "message.reply"}, "unknown_type"),  # ours, sent back to us
        ({"type": None}, "unknown_type"),
        ({"type": "gateway.check"}, "not_a_turn"),
        ({"gateway": None}, "malformed"),
        ({"data": {"message_id": "m", "content": {"type": "text", "text": "Hi"}}}, "malformed"),
        ({"data": {"device_id": "d", "message_id": "m", "content": {"type": "text", "text": " \n"}}}, "not_a_turn"),
        ({"data": {"device_id": "d", "message_id": "m", "content": {"type": "smell"}}}, "unknown_type"),
    ],
)
def test_what_is_no_turn_is_kept(change: dict[str, Any], reason: str) -> None:
    found = parsed({**orb.said("kitchen", "orb-7", "Hello"), **change})
    assert isinstance(found, Unhandled)
    assert found.reason == reason


# --- sending
def sent(provider: FakeServer, **account: Any) -> None:
    given = {"credentials": {"secret": SECRET}, "base_url": provider.url, "private_networks": LOOPBACK} | account
    OrbAdapter().send(Account("kitchen", **given), OutboundMessage("m1", "orb-7", AddressKind.DEVICE, "Hello", "m0"))


def refusal(provider: FakeServer, fault: Fault | None = None, **account: Any) -> SendError:
    if fault:
        provider.fail_next(fault)
    with pytest.raises(SendError) as caught:
        sent(provider, **account)
    return caught.value


def test_what_is_posted() -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        sent(gateway, credentials={"secret": f"whsec_b2xk,{SECRET}"})
        [request] = gateway.requests
        assert request.headers["webhook-id"] == "m1"
        assert len(request.headers["webhook-signature"].split(" ")) == 2, "both sign while one replaces the other"
        [event] = gateway.said
        assert (event["type"], event["gateway"]) == ("message.reply", "kitchen")
        content = {"type": "text", "text": "Hello"}
        data = {"device_id": "orb-7", "message_id": "m1", "content": content, "reply_to": "m0"}
        assert event["data"] == data


@pytest.mark.parametrize(
    ("status", "content", "code", "kind"),
    [
        (400, {}, "http_400", "final"),
        (401, {}, "http_401", "broken"),
        (403, {"code": "who_are_you"}, "who_are_you", "broken"),
        (404, {}, "http_404", "final"),
        (404, {"code": "unknown_device"}, "unknown_device", "final"),
        (408, {}, "http_408", "retryable"),
        (409, {}, "http_409", "final"),
        (410, {}, "http_410", "broken"),
        (413, {}, "http_413", "final"),
        (422, {"code": "x" * 300}, "x" * 40, "final"),
        (422, {"code": "+51 999 999 999"}, "http_422", "final"),
        (425, {}, "http_425", "retryable"),
        (429, {}, "http_429", "account"),
        (429, {"code": "device_throttled"}, "device_throttled", "recipient"),
        (500, {}, "http_500", "retryable"),
        (502, {}, "http_502", "ambiguous"),
        (503, {"code": "asleep"}, "asleep", "retryable"),
        (504, {}, "http_504", "ambiguous"),
    ],
)
def test_every_answer_means_something(status: int, content: Any, code: str, kind: str) -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        error = refusal(gateway, Fault(status=status, content=content))
    assert error.code == code
    assert error.account_broken == (kind == "broken")
    assert error.ambiguous == (kind == "ambiguous")
    assert error.retryable == (kind in ("retryable", "account", "recipient"))
    assert error.throttled == (kind if kind in ("account", "recipient") else "")


def test_the_check_asks_the_gateway_and_says_nothing_to_anybody() -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        account = Account("kitchen", {"secret": SECRET}, gateway.url, private_networks=LOOPBACK)
        assert OrbAdapter().check(account) == "kitchen"
        assert [event["type"] for event in gateway.events] == ["gateway.check"]
        assert gateway.said == []
        wrong = Account("kitchen", {"secret": orb.new_secret()}, gateway.url, private_networks=LOOPBACK)
        with pytest.raises(SendError) as caught:
            OrbAdapter().check(wrong)
        assert caught.value.account_broken


# --- where it may go
def test_an_account_without_a_url_is_broken() -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        error = refusal(gateway, base_url="")
    assert (error.code, error.account_broken) == ("no_gateway", True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]"]
)
def test_a_private_address_is_not_called(host: str) -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        url = gateway.url.replace("127.0.0.1", host)
        error = refusal(gateway, base_url=url, private_networks=())
        assert (error.code, error.account_broken, gateway.connections) == ("private_address", True, 0)


def test_a_name_that_stands_for_one_private_address_among_public_ones_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr("channels_out.public_addresses.socket.getaddrinfo", lambda *_, **__: answers)
    with FakeGateway("kitchen", SECRET) as gateway:
        error = refusal(gateway, base_url="http://gateway.example/orb", private_networks=())
    assert (error.code, error.account_broken) == ("private_address", True)


def test_a_name_is_looked_up_once_and_what_was_checked_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name is never looked up a second time."""
    with FakeGateway("kitchen", SECRET) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        answers = iter([[(2, 1, 6, "", ("127.0.0.2", port))]])
        asked = []

        def look_up(host: str, *_: Any, **__: Any) -> Any:
            if host != "gateway.example":
                return [(2, 1, 6, "", (host, port))]  # an address, which needs no looking up
            asked.append(host)
            return next(answers)

        monkeypatch.setattr("socket.getaddrinfo", look_up)
        monkeypatch.setattr(http, "create_connection", lambda where, *_: pytest.fail(str(where)))
        error = refusal(gateway, base_url=f"http://gateway.example:{port}/", private_networks=("127.0.0.1/32",))
        assert (error.code, asked) == ("private_address", ["gateway.example"])


def test_no_proxy_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeGateway("kitchen", SECRET) as gateway:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        sent(gateway)
        assert len(gateway.said) == 1
