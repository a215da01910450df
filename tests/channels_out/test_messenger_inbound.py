"""Messenger payloads in, events out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from channels_out.adapters.messenger import MessengerAdapter
from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, Receipt, Sender, Unhandled, WatermarkReceipt
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.simulators import messenger
from channels_out.simulators.messenger import attachment
from tests.channels_out.test_messenger_contract import ANA, AT, EVERYTHING, OURS, PAGE

ADAPTER = MessengerAdapter()
THEN = datetime.fromtimestamp(AT / 1000, UTC)
WHO = {"sender": {"id": ANA}, "recipient": {"id": PAGE}, "timestamp": AT}


def parsed(payload: Any) -> list[Event]:
    return ADAPTER.parse(InboundRequest("POST", "https://convo.example/", {}, {}, json.dumps(payload).encode()))


def read(*items: Any, key: str = "messaging") -> list[Event]:
    return parsed(messenger.payload(PAGE, *items, key=key))


def said(**message: Any) -> Any:
    return read({**WHO, "message": {"mid": "m_in1", **message}})


@pytest.mark.parametrize(
    ("message", "kind", "text", "metadata"),
    [
        ({"text": "Hello"}, "text", "Hello", {}),
        ({"text": "Yes", "quick_reply": {"payload": "y7"}}, "quick_reply", "Yes", {"payload": "y7"}),
        ({"quick_reply": {"payload": "y7"}}, "quick_reply", "y7", {"payload": "y7"}),
        ({"text": "That one", "reply_to": {"mid": "m_out1"}}, "text", "That one", {"reply_to": "m_out1"}),
        (
            {"attachments": [attachment("image", "https://cdn.example/1")]},
            "image",
            "[image]",
            {"attachments": [{"type": "image", "url": "https://cdn.example/1"}]},
        ),
        (
            {"text": "Both broken", "attachments": [attachment("image"), attachment("video")]},
            "text",
            "[image] [video] Both broken",
            {"attachments": [{"type": t, "url": "https://cdn.example/1"} for t in ("image", "video")]},
        ),
        (
            {"attachments": [{"type": "audio", "payload": None}]},
            "audio",
            "[audio]",
            {"attachments": [{"type": "audio"}]},
        ),
        ({"attachments": [{"type": "file"}]}, "file", "[file]", {"attachments": [{"type": "file"}]}),
        (
            {"attachments": [attachment("location", "", coordinates={"lat": 0.0, "long": 0})]},
            "location",
            "[location] (0.0, 0)",
            {"attachments": [{"type": "location", "latitude": 0.0, "longitude": 0}]},
        ),
        (
            {"attachments": [attachment("image", "https://cdn.example/t", sticker_id=369239263222822)]},
            "sticker",
            "👍",
            {"attachments": [{"type": "sticker", "url": "https://cdn.example/t", "sticker_id": 369239263222822}]},
        ),
        (
            {"attachments": [attachment("image", sticker_id=7)]},
            "sticker",
            "[sticker]",
            {"attachments": [{"type": "sticker", "url": "https://cdn.example/1", "sticker_id": 7}]},
        ),
        (
            {"attachments": [{"type": "fallback", "title": "A chair", "url": "https://shop.example/7"}]},
            "fallback",
            "[link] A chair https://shop.example/7",
            {"attachments": [{"type": "fallback", "title": "A chair", "url": "https://shop.example/7"}]},
        ),
        (
            {"text": "https://shop.example/7", "attachments": [{"type": "fallback", "title": "A chair"}]},
            "text",
            "https://shop.example/7",
            {"attachments": [{"type": "fallback", "title": "A chair"}]},
        ),
        (
            {"attachments": [attachment("reel", "/reel/123", title="A dance")]},
            "reel",
            "[reel] A dance",
            {"attachments": [{"type": "reel", "title": "A dance"}]},
        ),
        (
            {"attachments": [attachment("fallback", "javascript:alert(1)")]},
            "fallback",
            "[link]",
            {"attachments": [{"type": "fallback"}]},
        ),
        ({"attachments": [attachment("hologram")]}, "hologram", "[hologram]", None),
        ({"attachments": [None]}, "attachment", "[attachment]", None),
        (
            {"text": "Hi", "referral": {"source": "ADS", "ad_id": "1", "x": 2}},
            "text",
            "Hi",
            {"referral": {"source": "ADS", "ad_id": "1", "x": 2}},
        ),
    ],
)
def test_what_a_person_says_becomes_a_message(
    message: dict[str, Any], kind: str, text: str, metadata: dict[str, Any] | None
) -> None:
    (event,) = said(**message)
    assert isinstance(event, InboundMessage)
    assert (event.account, event.message_id, event.occurred_at) == (PAGE, "m_in1", THEN)
    assert event.sender == Sender(ANA, AddressKind.PSID)
    assert (event.kind, event.text) == (kind, text)
    assert metadata is None or event.metadata == metadata


def test_a_pressed_button_says_what_stood_on_it() -> None:
    item = messenger.postback(PAGE, ANA, "Get started", "START", mid="m_in1", at=AT)
    item["postback"]["referral"] = {"source": "SHORTLINK", "ref": "poster"}
    (event,) = read(item)
    assert isinstance(event, InboundMessage)
    assert (event.message_id, event.kind, event.text) == ("m_in1", "postback", "Get started")
    assert event.metadata == {
        "payload": "START",
        "title": "Get started",
        "referral": {"source": "SHORTLINK", "ref": "poster"},
    }


def test_a_button_without_an_id_is_the_same_each_time_it_is_delivered() -> None:
    press = messenger.postback(PAGE, ANA, "Get started", "START", at=AT)
    again = messenger.postback(PAGE, ANA, "Get started", "START", at=AT + 1)
    first, same, other = read(press, press, again)
    assert first == same
    assert isinstance(first, InboundMessage)
    assert isinstance(other, InboundMessage)
    assert first.message_id != other.message_id


@pytest.mark.parametrize(
    ("item", "kind", "reason"),
    [
        ({**WHO, "message": {"mid": "m", "text": " \n"}}, "text", "not_a_turn"),
        ({**WHO, "message": {"mid": "m", "is_deleted": True}}, "message_deleted", "not_a_turn"),
        ({**WHO, "message": {"mid": "m"}}, "text", "not_a_turn"),
        ({**WHO, "message": {"text": "no id"}}, "text", "malformed"),
        ({**WHO, "message": None}, "text", "malformed"),
        ({**WHO, "recipient": {"id": "999"}, "message": {"mid": "m", "text": "x"}}, "text", "malformed"),
        ({**WHO, "sender": {"user_ref": "x"}, "message": {"mid": "m", "text": "x"}}, "text", "malformed"),
        ({**WHO, "sender": None, "message": {"mid": "m", "text": "x"}}, "text", "malformed"),
        ({**WHO, "postback": {}}, "postback", "not_a_turn"),
        ({**WHO, "reaction": {"action": "unreact", "mid": "m"}}, "reaction", "not_a_turn"),
        ({**WHO, "referral": {"ref": "poster"}}, "referral", "not_a_turn"),
        ({**WHO, "optin": {"type": "notification_messages"}}, "optin", "not_a_turn"),
        ({**WHO, "message_edit": {"mid": "m", "text": "y"}}, "message_edit", "not_a_turn"),
        ({**WHO, "hologram": {}}, "hologram", "unknown_type"),
        (WHO, "unknown", "unknown_type"),
        (messenger.echo(PAGE, ANA, "Typed by hand", mid="m"), "message", "echo"),
        ({**WHO, "message": {"is_echo": True, "mid": "m", "text": "x"}}, "message", "echo"),
        ({**WHO, "sender": {"id": PAGE}, "message": {"mid": "m", "text": "x"}}, "message", "echo"),
        (messenger.echo(PAGE, ANA, "x", mid="m", metadata="another program's"), "message", "echo"),
        (messenger.read(PAGE, ANA, watermark=0), "read", "malformed"),
        ({**WHO, "delivery": {"mids": [None, ""], "watermark": "soon"}}, "delivered", "malformed"),
        (None, "messaging", "malformed"),
        ([], "messaging", "malformed"),
    ],
)
def test_what_is_no_turn_is_kept_with_its_reason(item: Any, kind: str, reason: str) -> None:
    (event,) = read(item)
    assert isinstance(event, Unhandled)
    assert (event.account, event.kind, event.reason) == (PAGE, kind, reason)
    assert parsed(event.raw) == [event]


def test_while_another_app_has_the_conversation_nobody_waits_for_us() -> None:
    for event in read(*EVERYTHING, key="standby"):
        assert isinstance(event, Unhandled)
        assert (event.kind, event.reason) == ("standby", "not_a_turn")
        assert parsed(event.raw) == [event]


def test_our_own_echo_says_that_it_was_sent() -> None:
    (event,) = read(messenger.echo(PAGE, ANA, "Hi", mid="m_out1", metadata=OURS))
    assert isinstance(event, Receipt)
    assert (event.status, event.provider_message_id, event.our_message_id) == (ReceiptStatus.SENT, "m_out1", OURS)


def test_deliveries_name_messages_or_a_time() -> None:
    named = read(messenger.delivery(PAGE, ANA, mids=["m_1", "m_2", "m_1"], watermark=AT))
    assert named == [Receipt(PAGE, mid, ReceiptStatus.DELIVERED, occurred_at=THEN) for mid in ("m_1", "m_2")]
    until = read(messenger.delivery(PAGE, ANA, watermark=AT), messenger.read(PAGE, ANA, watermark=AT // 1000))
    assert until == [
        WatermarkReceipt(PAGE, ANA, status, THEN) for status in (ReceiptStatus.DELIVERED, ReceiptStatus.READ)
    ]


@pytest.mark.parametrize(
    "payload", [{"entry": {}}, {"entry": None}, {}, [], None, {"object": "instagram", "entry": []}]
)
def test_what_is_no_messenger_payload_is_malformed(payload: Any) -> None:
    with pytest.raises(InboundError) as caught:
        parsed(payload)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("wrong", [None, True, 7, "x", [], {}, [None], {"id": {}}])
def test_no_wrong_type_anywhere_breaks_it(wrong: Any) -> None:
    """Replace every value of a complete payload in turn."""
    genuine = messenger.payload(PAGE, *json.loads(json.dumps(EVERYTHING)))

    def walk(holder: Any) -> None:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            kept, holder[key] = holder[key], wrong
            try:
                parsed(genuine)
            except InboundError as error:
                assert error.code == "malformed"
            holder[key] = kept
            if isinstance(kept, dict | list):
                walk(kept)

    walk(genuine)
