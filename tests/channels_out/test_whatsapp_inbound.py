"""Recorded WhatsApp payloads in, events out. The payloads are ours, written after facts/providers.md section 1."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from channels_out.events import Event, InboundMessage, MediaReference, Receipt, Sender, Unhandled
from channels_out.kinds import AddressKind, MediaKind, ReceiptStatus

PAYLOADS = Path(__file__).parent.parent / "payloads" / "whatsapp"
ADAPTER = WhatsAppAdapter()
AT = datetime.fromtimestamp(1754119029, UTC)
ANA = Sender("51999999999", AddressKind.PHONE, "+51999999999", "Ana Quispe")


def request(body: bytes) -> InboundRequest:
    return InboundRequest("POST", "https://convo.example/", {}, {}, body)


def recorded(name: str) -> list[Event]:
    return ADAPTER.parse(request((PAYLOADS / f"{name}.json").read_bytes()))


def parsed(payload: Any) -> list[Event]:
    return ADAPTER.parse(request(json.dumps(payload).encode()))


def text_payload(**changes: Any) -> dict[str, Any]:
    """Return the recorded text, with keys of its message replaced."""
    payload: dict[str, Any] = json.loads((PAYLOADS / "text.json").read_text())
    payload["entry"][0]["changes"][0]["value"]["messages"][0].update(changes)
    return payload


@pytest.mark.parametrize(
    ("name", "text", "metadata"),
    [
        ("text", "Hello, is my order on its way?", {}),
        ("text_reply", "Yes, that one", {"reply_to": "wamid.out1"}),
        ("text_forwarded", "Look at this", {"forwarded": True}),
        (
            "text_from_advertisement",
            "Is this still available?",
            {
                "referral": {
                    "source_url": "https://fb.me/x",
                    "source_id": "120",
                    "source_type": "ad",
                    "headline": "Chairs",
                    "body": "Half price",
                    "media_type": "image",
                    "image_url": "https://x/y.jpg",
                    "ctwa_clid": "Aff-1",
                }
            },
        ),
        (
            "image",
            "[image] This one is broken",
            {"media_id": "media1", "mime_type": "image/jpeg", "sha256": "abc="},
        ),
        ("image_without_caption", "[image]", {"media_id": "media1", "mime_type": "image/jpeg", "sha256": "abc="}),
        ("image_not_downloaded", "[image]", {"errors": [{"code": 131052, "title": "Media download error"}]}),
        ("video", "[video] Listen to it", {"media_id": "media2", "mime_type": "video/mp4", "sha256": "abc="}),
        (
            "audio",
            "[voice]",
            {"media_id": "media3", "mime_type": "audio/ogg; codecs=opus", "sha256": "abc=", "voice": True},
        ),
        ("voice", "[voice]", {"media_id": "media3", "mime_type": "audio/ogg", "sha256": "abc="}),
        (
            "document",
            "[document] invoice.pdf: From May",
            {"media_id": "media4", "mime_type": "application/pdf", "sha256": "abc=", "filename": "invoice.pdf"},
        ),
        ("sticker", "[sticker]", {"media_id": "media5", "mime_type": "image/webp", "sha256": "abc="}),
        (
            "location",
            "[location] Null Pier, Gulf of Guinea (0.0, 1.0)",
            {
                "latitude": 0.0,
                "longitude": 1.0,
                "name": "Null Pier",
                "address": "Gulf of Guinea",
                "url": "https://example.org/pier",
            },
        ),
        ("location_bare", "[location] (0, 0)", {"latitude": 0, "longitude": 0}),
        (
            "contacts",
            "[contacts] Luz Mamani +51 988 888 888, Taxi",
            {"contacts": [{"name": "Luz Mamani", "phones": ["+51 988 888 888"]}, {"name": "Taxi", "phones": []}]},
        ),
        (
            "order",
            "[order] 2 x sku-1, 1 x sku-2. Before noon please",
            {
                "catalog_id": "cat1",
                "products": [
                    {"id": "sku-1", "quantity": 2, "price": 10.5, "currency": "PEN"},
                    {"id": "sku-2", "quantity": "1", "price": "3", "currency": "PEN"},
                ],
            },
        ),
        ("button", "Cancel it", {"reply_to": "wamid.out1", "payload": "CANCEL-7", "title": "Cancel it"}),
        ("interactive_button", "Yes", {"reply_to": "wamid.out1", "payload": "yes-7", "title": "Yes"}),
        ("interactive_list", "Tuesday", {"payload": "slot-3", "title": "Tuesday", "description": "9 to 12"}),
        (
            "interactive_form",
            "[form] Sent: name: Ana; guests: 3; terrace: yes; days: Mon, Tue; more: (a: 1)",
            {
                "response": '{"flow_token": "t", "name": "Ana", "guests": 3, "terrace": true,'
                ' "days": ["Mon", "Tue"], "more": {"a": 1}}'
            },
        ),
        ("interactive_form_broken", "[form] Sent", {"response": '{"name":'}),
        ("interactive_form_array", "[form] Sent", {"response": "[1,2]"}),
        (
            "unsupported",
            "[a message that WhatsApp cannot pass on]",
            {"errors": [{"code": 131051, "title": "Message type unknown"}]},
        ),
        (
            "unsupported_with_text",
            "I wrote this on my watch",
            {"errors": [{"code": 131051, "title": "Message type unknown"}]},
        ),
    ],
)
def test_what_a_person_says_becomes_a_message(name: str, text: str, metadata: dict[str, Any]) -> None:
    (event,) = recorded(name)
    kind = json.loads((PAYLOADS / f"{name}.json").read_text())["entry"][0]["changes"][0]["value"]["messages"][0]["type"]
    assert event == InboundMessage(
        "1234567890", "wamid.in1", ANA, text, AT, kind, metadata, media=media_of(kind, metadata)
    )


def media_of(kind: str, metadata: dict[str, Any]) -> tuple[MediaReference, ...]:
    """The file that a message with this metadata has."""
    if "media_id" not in metadata:
        return ()
    what = MediaKind.VOICE if metadata.get("voice") else MediaKind(kind)
    return (MediaReference(what, metadata["media_id"], metadata["mime_type"], metadata.get("filename", "")),)


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("text_blank", "text", "not_a_turn"),
        ("reaction", "reaction", "not_a_turn"),
        ("reaction_removed", "reaction", "not_a_turn"),
        ("edit", "edit", "not_a_turn"),
        ("revoke", "revoke", "not_a_turn"),
        ("system", "system", "not_a_turn"),
        ("request_welcome", "request_welcome", "not_a_turn"),
        ("group_message", "text", "not_a_turn"),
        ("unknown_type", "hologram", "unknown_type"),
        ("interactive_unknown", "interactive", "unknown_type"),
        ("no_sender", "text", "malformed"),
        ("bad_sender", "text", "malformed"),
        ("no_id", "text", "malformed"),
        ("echo", "text", "echo"),
        ("template_status", "message_template_status_update", "not_a_turn"),
        ("account_errors", "errors", "not_a_turn"),
        ("status_in_orbit", "status", "unknown_type"),
    ],
)
def test_what_is_no_turn_is_kept_with_its_reason(name: str, kind: str, reason: str) -> None:
    (event,) = recorded(name)
    assert isinstance(event, Unhandled)
    assert (event.kind, event.reason) == (kind, reason)
    assert event.account == ("" if name == "template_status" else "1234567890")
    assert parsed(event.raw) == [event]


@pytest.mark.parametrize(
    ("said", "moved"),
    [
        ({}, (("phone", "51999999999", "51977777777"),)),
        (
            {"wa_id": None, "new_wa_id": "51977777777", "type": "customer_changed_number"},
            (("phone", ANA.address, "51977777777"),),
        ),
        (
            {"user_id": "PE.2", "previous_user_id": "PE.1"},
            (("phone", "51999999999", "51977777777"), ("bsuid", "PE.1", "PE.2")),
        ),
        ({"type": "user_changed_user_id", "user_id": "PE.2", "previous_user_id": "PE.1"}, (("bsuid", "PE.1", "PE.2"),)),
        ({"wa_id": "51999999999"}, ()),
        ({"wa_id": "PE.1"}, ()),
        ({"wa_id": ["51977777777"]}, ()),
        ({"type": "customer_identity_changed"}, ()),
        ({"type": 7}, ()),
    ],
)
def test_a_system_message_says_which_address_became_which(
    said: dict[str, Any], moved: tuple[tuple[str, str, str], ...]
) -> None:
    payload = json.loads((PAYLOADS / "system.json").read_text())
    payload["entry"][0]["changes"][0]["value"]["messages"][0]["system"] |= said
    (event,) = parsed(payload)
    assert isinstance(event, Unhandled)
    assert tuple((each.kind.value, each.before, each.after) for each in event.moved) == moved
    assert parsed(event.raw) == [event]


@pytest.mark.parametrize(
    ("name", "sender"),
    [
        ("bsuid_and_phone", Sender(ANA.address, ANA.kind, ANA.phone, ANA.name, ((AddressKind.BSUID, "PE.1234"),))),
        (
            "bsuid_only",
            Sender("PE.1234", AddressKind.BSUID, None, "Ana Quispe", ((AddressKind.BSUID, "PE.ENT.5678"),)),
        ),
        ("bsuid_in_from", Sender("PE.1234", AddressKind.BSUID, None, "Ana Quispe")),
    ],
)
def test_a_person_is_known_by_phone_and_user_id(name: str, sender: Sender) -> None:
    (event,) = recorded(name)
    assert isinstance(event, InboundMessage)
    assert event.sender == sender


def test_the_phone_behind_a_user_id_comes_from_the_contacts() -> None:
    payload = json.loads((PAYLOADS / "bsuid_and_phone.json").read_text())
    del payload["entry"][0]["changes"][0]["value"]["messages"][0]["from"]
    (event,) = parsed(payload)
    assert isinstance(event, InboundMessage)
    aliases = ((AddressKind.PHONE, "51999999999"),)
    assert event.sender == Sender("PE.1234", AddressKind.BSUID, "+51999999999", "Ana Quispe", aliases)


@pytest.mark.parametrize(
    ("contacts", "name"),
    [
        ([], None),
        (None, None),
        ({"wa_id": "51999999999"}, None),
        ([None, 7, {"wa_id": "51999999999"}], None),
        ([{"wa_id": "51999999999", "profile": None}], None),
        ([{"wa_id": "51999999999", "profile": {"name": ""}}], None),
        ([{"wa_id": "51999999999", "profile": {"name": "\n\x07\u202e"}}], None),
        ([{"wa_id": "2", "profile": {"name": "Luz"}}], None),
        (
            [{"wa_id": "2", "profile": {"name": "Luz"}}, {"wa_id": "51999999999", "profile": {"name": "Ana"}}],
            "Ana",
        ),
        ([{"wa_id": "51999999999", "profile": {"name": " A\u0000n\na\u202e\x1b[0m  👩‍🚀 "}}], "A\ufffdn a [0m 👩‍🚀"),
        ([{"wa_id": "51999999999", "profile": {"name": "x" * 5000}}], "x" * 200),
    ],
)
def test_the_name_is_that_of_the_matching_contact(contacts: Any, name: str | None) -> None:
    payload = text_payload()
    payload["entry"][0]["changes"][0]["value"]["contacts"] = contacts
    (event,) = parsed(payload)
    assert isinstance(event, InboundMessage)
    assert event.sender.name == name


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1754119029", AT),
        (1754119029, AT),
        ("1754119029000", AT),
        (1754119029000, AT),
    ],
)
def test_a_time_is_read_in_seconds_or_milliseconds(timestamp: Any, expected: datetime | None) -> None:
    (event,) = parsed(text_payload(timestamp=timestamp))
    assert isinstance(event, InboundMessage)
    assert event.occurred_at == expected


@pytest.mark.parametrize(
    "timestamp", [None, "", "asdf", "-5", "0", "1e9", "١٧٥٤١١٩٠٢٩", "9999999999", "9" * 5000, 10**30, True, [], 5.5]
)
def test_a_time_that_is_nonsense_is_left_out(timestamp: Any) -> None:
    (event,) = parsed(text_payload(timestamp=timestamp))
    assert isinstance(event, InboundMessage)
    assert event.occurred_at is None


@pytest.mark.parametrize(
    ("name", "status", "our_id", "code", "reason"),
    [
        ("sent", ReceiptStatus.SENT, "msg_1", "", ""),
        ("delivered", ReceiptStatus.DELIVERED, "msg_1", "", ""),
        ("read", ReceiptStatus.READ, "msg_1", "", ""),
        ("played", ReceiptStatus.READ, "msg_1", "", ""),
        ("failed", ReceiptStatus.FAILED, None, "131047", "More than 24 hours have passed."),
    ],
)
def test_a_status_becomes_a_receipt(
    name: str, status: ReceiptStatus, our_id: str | None, code: str, reason: str
) -> None:
    at = datetime.fromtimestamp(1754119031, UTC)
    expected = Receipt("1234567890", "wamid.out1", status, at, our_id, code, reason, outside_window=code == "131047")
    assert recorded(f"status_{name}") == [expected]


@pytest.mark.parametrize(
    ("errors", "code", "reason"),
    [
        ([{"code": "131026", "title": "Undeliverable"}], "131026", "Undeliverable"),
        ([{"code": 1, "message": "m", "title": "t", "error_data": "x"}], "1", "m"),
        ([{"code": None}], "", ""),
        ([None], "", ""),
        ({}, "", ""),
        (None, "", ""),
    ],
)
def test_a_failure_is_told_as_far_as_it_is_known(errors: Any, code: str, reason: str) -> None:
    payload = json.loads((PAYLOADS / "status_failed.json").read_text())
    payload["entry"][0]["changes"][0]["value"]["statuses"][0]["errors"] = errors
    (event,) = parsed(payload)
    assert isinstance(event, Receipt)
    assert (event.code, event.reason) == (code, reason)


def test_every_change_belongs_to_its_own_number() -> None:
    assert [event.account for event in recorded("batch")] == ["1234567890"] * 5 + ["2222222222", "3333333333"]


def test_people_of_a_batch_are_told_apart() -> None:
    messages = [event for event in recorded("batch") if isinstance(event, InboundMessage)]
    assert [(each.text, each.sender.name) for each in messages] == [
        ("One", "Ana Quispe"),
        ("Two", "Luz"),
        ("To another tenant", "Ana Quispe"),
    ]


def test_the_same_message_twice_is_told_twice() -> None:
    first, second = recorded("duplicate")
    assert first == second


def test_one_bad_item_does_not_lose_the_others() -> None:
    events = recorded("bad_items_among_good")
    assert [event.text for event in events if isinstance(event, InboundMessage)] == ["Good"]
    assert [event.status for event in events if isinstance(event, Receipt)] == [ReceiptStatus.READ]
    assert sum(isinstance(event, Unhandled) for event in events) == 17
    for event in events:
        if isinstance(event, Unhandled):
            assert parsed(event.raw) == [event]


def test_the_raw_of_one_item_does_not_hold_the_whole_batch() -> None:
    reactions = [{"from": str(10**9 + n), "id": f"w{n}", "type": "reaction"} for n in range(1000)]
    contacts = [{"wa_id": str(10**9 + n), "profile": {"name": f"Name {n}"}} for n in range(1000)]
    payload = text_payload()
    payload["entry"][0]["changes"][0]["value"].update(messages=reactions, contacts=contacts)
    events = parsed(payload)
    assert len(events) == 1000
    for number, event in enumerate(events):
        assert isinstance(event, Unhandled)
        assert len(json.dumps(event.raw)) < 600
        assert f"Name {number}" in json.dumps(event.raw)


def test_nul_and_unpaired_surrogates_are_replaced() -> None:
    message, other = recorded("nul_and_surrogates")
    assert isinstance(message, InboundMessage)
    assert message.text == "half \ufffd and nul \ufffd and whole 👍"
    assert message.sender.name == "An\ufffda \ufffd"
    assert isinstance(other, Unhandled)
    assert other.kind == "holo\ufffdgram"
    item = other.raw["entry"][0]["changes"][0]["value"]["messages"][0]
    assert item["\ufffd"] == ["\ufffd"]


def test_a_nul_hidden_in_a_form_is_replaced() -> None:
    payload = json.loads((PAYLOADS / "interactive_form.json").read_text())
    reply = payload["entry"][0]["changes"][0]["value"]["messages"][0]["interactive"]["nfm_reply"]
    reply["response_json"] = '{"a\\u0000": "\\ud83d"}'
    (event,) = parsed(payload)
    assert isinstance(event, InboundMessage)
    assert event.text == "[form] Sent: a\ufffd: \ufffd"


@pytest.mark.parametrize(
    "payload",
    [
        {"entry": {}},
        {"entry": None},
        {"object": "whatsapp_business_account"},
        {"object": "page", "entry": []},
        {"object": None, "entry": []},
        [],
        "entry",
        None,
    ],
)
def test_what_is_no_whatsapp_payload_is_malformed(payload: Any) -> None:
    for read in (ADAPTER.parse, ADAPTER.addresses):
        with pytest.raises(InboundError) as caught:
            read(request(json.dumps(payload).encode()))
        assert caught.value.code == "malformed"


def test_a_message_without_a_type_but_with_a_text_is_a_text() -> None:
    (event,) = parsed(text_payload(type=None))
    assert isinstance(event, InboundMessage)
    assert (event.kind, event.text) == ("text", "Hello, is my order on its way?")


def test_the_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = request((PAYLOADS / "text.json").read_bytes())
    ADAPTER.addresses(one)
    monkeypatch.setattr("channels_out.contract.load_json", None)
    assert len(ADAPTER.parse(one)) == 1


@pytest.mark.parametrize("wrong", [None, True, 7, 1.5, "x", [], ["x"], {}, {"x": {}}, [None], [[[]]]])
@pytest.mark.parametrize("path", sorted(PAYLOADS.glob("*.json")), ids=lambda path: path.stem)
def test_no_wrong_type_anywhere_breaks_it(path: Path, wrong: Any) -> None:
    """Replace every value of every recorded payload in turn."""
    genuine = json.loads(path.read_text())

    def walk(holder: Any) -> None:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            kept, holder[key] = holder[key], wrong
            try:
                ADAPTER.addresses(request(json.dumps(genuine).encode()))
                ADAPTER.parse(request(json.dumps(genuine).encode()))
            except InboundError as error:
                assert error.code == "malformed"
            holder[key] = kept
            if isinstance(kept, dict | list):
                walk(kept)

    walk(genuine)


def test_a_contact_card_reads_as_all_that_it_says() -> None:
    card = {
        "name": {"formatted_name": "Luz Mamani", "first_name": "Luz"},
        "org": {"company": "Taxi Sur", "title": "Driver"},
        "phones": [{"phone": "+51 988 888 888", "wa_id": "51988888888"}, {"wa_id": "51977777777"}],
        "emails": [{"email": "luz@taxi.example", "type": "WORK"}],
        "addresses": [{"street": "Av. Sol 1", "city": "Cusco", "country": "Peru"}],
        "urls": [{"url": "https://taxi.example"}],
        "birthday": "1990-01-31",
    }
    nameless = {"name": {"first_name": "Ana", "last_name": "Paz"}, "phones": "none", "emails": [None, 7]}
    (event,) = parsed(text_payload(type="contacts", contacts=[card, nameless, None]))

    assert isinstance(event, InboundMessage)
    assert event.text == (
        "[contacts] Luz Mamani +51 988 888 888 51977777777 (Driver, Taxi Sur; luz@taxi.example; Av. Sol 1, Cusco, Peru;"
        " https://taxi.example; 1990-01-31), Ana Paz"
    )
    assert event.metadata["contacts"][0]["company"] == "Driver, Taxi Sur"
    assert event.metadata["contacts"][1] == {"name": "Ana Paz", "phones": []}


def test_nested_answers_of_a_form_are_read_and_files_by_their_names() -> None:
    answers = {
        "flow_token": "t",
        "guest": {"name": "Ana", "diet": ["vegan", {"nuts": False}]},
        "photos": [{"id": 1, "mime_type": "image/jpeg", "file_name": "IMG_1.jpg"}, {"id": "2", "mime_type": "a/b"}],
        "deep": {"a": {"b": {"c": {"d": {"e": "too deep"}}}}},
        "empty": {},
    }
    form = {"type": "nfm_reply", "nfm_reply": {"body": "Sent", "response_json": json.dumps(answers)}}
    (event,) = parsed(text_payload(type="interactive", interactive=form))

    assert isinstance(event, InboundMessage)
    assert event.text == ("[form] Sent: guest: (name: Ana; diet: vegan, (nuts: no)); photos: IMG_1.jpg, a file")
    assert [each.source for each in event.media] == ["1", "2"]
