"""SMS through Plivo: the events of its forms, and its send route over real HTTP against the fake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from channels_out import splitting
from channels_out.adapters import plivo
from channels_out.adapters.plivo_sms import DELIVERY_ERRORS, UNKNOWN_DELIVERY_ERROR, PlivoSmsAdapter
from channels_out.contract import Account, InboundRequest, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.events import Event, InboundMessage, Receipt, Unhandled
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.simulators import plivo_payloads as payloads
from tests.fakes.plivo import FakePlivo
from tests.fakes.server import Fault

ADAPTER = PlivoSmsAdapter()
NUMBER = "14155550000"
URL = "https://convo.example/webhooks/sms/inbound"
MESSAGE = OutboundMessage("msg_1", "51999999999", AddressKind.PHONE, "Hello")


# --- inbound messages -------------------------------------------------------------------------------------------------
def event_of(form: Mapping[str, Any] | bytes, query: Mapping[str, str] | None = None) -> Event:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    (event,) = ADAPTER.parse(InboundRequest("POST", URL, {"content-type": plivo.FORM}, query or {}, body))
    return event


def sms(text: str = "Hello", **changes: Any) -> dict[str, str]:
    form = payloads.sms(sender="51999999999", to=NUMBER, text=text, message_uuid="uuid-1")
    return {name: value for name, value in {**form, **changes}.items() if value is not None}


def unhandled(form: Mapping[str, Any]) -> tuple[str, str, str]:
    event = event_of(form)
    assert isinstance(event, Unhandled)
    kept = InboundRequest("POST", "", {}, {}, json.dumps(event.raw).encode())
    assert ADAPTER.parse(kept) == [event], "it can be replayed"
    return event.account, event.kind, event.reason


def test_a_text_is_what_was_written() -> None:
    event = event_of(sms("Größe? 👍 a&b=c +1"))
    assert isinstance(event, InboundMessage)
    assert (event.account, event.message_id, event.text, event.kind) == (NUMBER, "uuid-1", "Größe? 👍 a&b=c +1", "text")
    assert (event.sender.address, event.sender.kind, event.sender.phone) == (
        *("51999999999", AddressKind.PHONE),
        "+51999999999",
    )


def test_case_20_numbers_are_digits_however_they_are_written() -> None:
    for to, sender in [("+14155550000", "+51999999999"), (" 14155550000", " 51999999999")]:
        event = event_of(sms(To=to, From=sender))
        assert isinstance(event, InboundMessage)
        assert (event.account, event.sender.address) == (NUMBER, "51999999999")
    unescaped = urlencode(sms()).replace("From=", "From=+").encode()  # a plus that arrives as a space
    event = event_of(unescaped)
    assert isinstance(event, InboundMessage)
    assert event.sender.address == "51999999999"


def test_case_20_a_short_code_is_somebody_without_a_phone() -> None:
    event = event_of(sms(From="2020"))
    assert isinstance(event, InboundMessage)
    assert (event.sender.address, event.sender.phone) == ("2020", None)


def test_case_20_who_cannot_be_answered_is_kept() -> None:
    assert unhandled(sms(From="MTN")) == (NUMBER, "sender without a number", "not_a_turn")
    assert unhandled(sms(From=NUMBER)) == (NUMBER, "sms", "echo")


@pytest.mark.parametrize("written", ["optout", "OptOut "])
def test_case_20_what_plivo_takes_for_an_opt_out_says_so(written: str) -> None:
    event = event_of(sms("Leave me alone", MessageIntent=written))
    assert isinstance(event, InboundMessage)
    assert event.intent == "optout"


@pytest.mark.parametrize("written", ["optin", "help", "", "x"])
def test_case_20_any_other_intent_is_a_message(written: str) -> None:
    assert isinstance(event_of(sms("START", MessageIntent=written)), InboundMessage)


def test_case_10_texts_that_are_none() -> None:
    for form in (sms(""), sms(" \n"), sms(Text=None)):
        assert unhandled(form) == (NUMBER, "empty", "not_a_turn")


def test_case_10_media_have_a_stand_in() -> None:
    media = ["https://media.plivo.com/1", "https://media.plivo.com/2"]
    event = event_of(payloads.sms(sender="51999999999", to=NUMBER, text="Look", media=media))
    assert isinstance(event, InboundMessage)
    assert (event.text, event.kind, event.metadata) == ("[media] Look", "mms", {"media": media})
    event = event_of(payloads.sms(sender="51999999999", to=NUMBER, text="", media=media[:1]))
    assert isinstance(event, InboundMessage)
    assert event.text == "[media]"
    event = event_of(sms("", Type="mms", Media0="https://media.plivo.com/0", Media1="javascript:alert(1)"))
    assert isinstance(event, InboundMessage)
    assert event.metadata == {"media": ["https://media.plivo.com/0"]}


def test_case_11_nul_and_control_characters_are_kept_as_stand_ins() -> None:
    event = event_of(urlencode(sms()).replace("Text=Hello", "Text=a%00b%ED%A0%BD%07").encode())
    assert isinstance(event, InboundMessage)
    assert event.text.startswith("a\ufffdb")
    assert "\x00" not in event.text


@pytest.mark.parametrize("missing", ["To", "From", "MessageUUID"])
def test_what_names_nobody_is_kept(missing: str) -> None:
    account, kind, reason = unhandled(sms(**{missing: None}))
    assert (account, kind, reason) == ("" if missing == "To" else NUMBER, "sms", "malformed")


def test_other_types_are_kept() -> None:
    assert unhandled(sms(Type="whatsapp")) == (NUMBER, "whatsapp", "unknown_type")


def test_case_20_json_at_the_form_s_door_is_no_message() -> None:
    request = InboundRequest("POST", URL, {"content-type": plivo.FORM}, {}, json.dumps(sms()).encode())
    (event,) = ADAPTER.parse(request)
    assert isinstance(event, Unhandled)
    cut = InboundRequest("POST", URL, {"content-type": plivo.FORM}, {}, b'{"a": ')
    assert ADAPTER.parse(ADAPTER.replayed(ADAPTER.keep(cut))) == ADAPTER.parse(cut)


def test_a_get_brings_the_same() -> None:
    asked = InboundRequest("GET", URL, {}, sms(), b"")
    assert ADAPTER.parse(asked) == [event_of(sms())] == ADAPTER.parse(ADAPTER.replayed(ADAPTER.keep(asked)))


# --- receipts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", ReceiptStatus.SENT),
        ("sent", ReceiptStatus.SENT),
        ("Delivered", ReceiptStatus.DELIVERED),
        ("read", ReceiptStatus.READ),
        ("failed", ReceiptStatus.FAILED),
        ("undelivered", ReceiptStatus.FAILED),
        ("rejected", ReceiptStatus.FAILED),
    ],
)
def test_a_status_is_about_our_number_and_names_our_message(status: str, expected: ReceiptStatus) -> None:
    form = payloads.status(sender="+" + NUMBER, to="51999999999", message_uuid="u", status=status, sequence=3)
    event = event_of(form, {"message": "msg_1"})
    assert isinstance(event, Receipt)
    assert (event.account, event.provider_message_id, event.status) == (NUMBER, "u", expected)
    assert (event.our_message_id, event.sequence) == ("msg_1", 3)
    assert ADAPTER.addresses(InboundRequest("POST", URL, {}, {}, urlencode(form).encode())) == [NUMBER]


@pytest.mark.parametrize("code", [*DELIVERY_ERRORS, "77", ""])
def test_every_error_code_has_a_sentence(code: str) -> None:
    form = payloads.status(sender=NUMBER, to="1", message_uuid="u", status="undelivered", sequence=1, error_code=code)
    event = event_of(form)
    assert isinstance(event, Receipt)
    assert event.code == code
    assert DELIVERY_ERRORS.get(code, UNKNOWN_DELIVERY_ERROR).reason in event.reason


def test_a_status_that_nobody_knows_is_kept() -> None:
    form = payloads.status(sender=NUMBER, to="1", message_uuid="u", status="in_orbit", sequence=1)
    assert unhandled(form) == (NUMBER, "status", "unknown_type")
    assert unhandled({**form, "Status": "sent", "MessageUUID": ""}) == (NUMBER, "status", "malformed")


# --- sending ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def provider() -> Iterator[FakePlivo]:
    with FakePlivo(NUMBER) as provider:
        yield provider


def account(provider: FakePlivo, **changes: Any) -> Account:
    fields = {"address": NUMBER, "credentials": provider.credentials, "base_url": provider.base_url}
    return Account(**{**fields, "public_url": "https://convo.example", **changes})


def send(provider: FakePlivo, message: OutboundMessage = MESSAGE, **changes: Any) -> SendResult:
    return ADAPTER.send(account(provider, **changes), message)


def failure(provider: FakePlivo, message: OutboundMessage = MESSAGE, **changes: Any) -> SendError:
    with pytest.raises(SendError) as caught:
        send(provider, message, **changes)
    return caught.value


def test_it_sends_what_plivo_wants(provider: FakePlivo) -> None:
    result = send(provider)
    (request,) = provider.requests
    assert result == SendResult(provider.sent[0].message_uuid, ReceiptStatus.SENT)
    assert request.path == f"/v1/Account/{provider.auth_id}/Message/"
    assert request.json() == {
        "src": NUMBER,
        "dst": "51999999999",
        "text": "Hello",
        "url": "https://convo.example/webhooks/sms/status?message=msg_1",
        "method": "POST",
    }


@pytest.mark.parametrize(
    ("status", "retryable", "throttled", "broken"),
    [
        *((status, False, "", False) for status in (400, 403, 404, 405, 409, 413, 415, 422, 418, 301)),
        *((status, False, "", True) for status in (401, 402)),
        *((status, True, "", False) for status in (408, 425, 500, 501, 502, 503, 504)),
        (429, True, "account", False),
    ],
)
def test_every_status_says_what_an_error_means(
    provider: FakePlivo, status: int, retryable: bool, throttled: str, broken: bool
) -> None:
    provider.error_next(status, **{"Retry-After": "9"})
    error = failure(provider)
    assert (error.code, error.retryable, error.throttled) == (f"http_{status}", retryable, throttled)
    assert (error.account_broken, error.ambiguous) == (broken, False)
    assert error.retry_after == (9.0 if retryable or broken else None)


@pytest.mark.parametrize("error", ["words", {"text": ["too long"]}, None, 7])
def test_an_error_of_any_shape_is_read(provider: FakePlivo, error: Any) -> None:
    provider.fail_next(Fault(400, {"api_id": "x", "error": error}))
    assert failure(provider).code == "http_400"


@pytest.mark.parametrize(
    "content",
    [
        {"message_uuid": []},
        {"message_uuid": [""]},
        {"message_uuid": [7]},
        {"message_uuid": "u"},
        {"message_uuid": None},
    ],
)
def test_a_success_that_names_no_message_is_ambiguous(provider: FakePlivo, content: Any) -> None:
    provider.fail_next(Fault(202, content))
    error = failure(provider)
    assert (error.code, error.ambiguous) == ("bad_answer", True)


def test_an_error_within_a_success_is_one(provider: FakePlivo) -> None:
    provider.fail_next(Fault(202, {"api_id": "x", "error": "no"}))
    assert not failure(provider).ambiguous


@pytest.mark.parametrize("to", ["ann", "51999999999<51888888888", "+51999999999", "٣٤٥٦٧٨٩", ""])
def test_whoever_has_no_number_gets_nothing(provider: FakePlivo, to: str) -> None:
    error = failure(provider, OutboundMessage("m", to, AddressKind.USER, "Hello"))
    assert (error.code, error.retryable, error.account_broken) == ("no_phone_number", False, False)
    assert provider.requests == []


def test_of_two_tokens_the_first_sends(provider: FakePlivo) -> None:
    credentials = {**provider.credentials, "auth_token": f"{provider.auth_token}, old"}
    assert send(provider, credentials=credentials)
    credentials = {**provider.credentials, "auth_token": "wrong"}
    error = failure(provider, credentials=credentials)
    assert (error.code, error.account_broken) == ("http_401", True)


@pytest.mark.parametrize("auth_id", ["../MA", "MA 1", "MA?x", "é"])
def test_an_auth_id_that_is_none_breaks_the_account(provider: FakePlivo, auth_id: str) -> None:
    error = failure(provider, credentials={**provider.credentials, "auth_id": auth_id})
    assert (error.code, error.account_broken) == ("invalid_request", True)
    assert provider.requests == []


def test_case_14_plivo_counts_bytes_and_so_do_we(provider: FakePlivo) -> None:
    text = "مرحبا بالعالم " * 200
    parts = splitting.split(text, ADAPTER.text_limit, ADAPTER.limit_unit)
    assert len(parts) > 2
    assert "".join(parts).rstrip() == text.rstrip()
    for part in parts:
        send(provider, OutboundMessage("m", "51999999999", AddressKind.PHONE, part))
    assert [sent.text for sent in provider.sent] == parts
    error = failure(provider, OutboundMessage("m", "51999999999", AddressKind.PHONE, "é" * 801))
    assert error.code == "http_400"


def test_the_credentials_can_be_checked(provider: FakePlivo) -> None:
    assert ADAPTER.check(account(provider)) == "The shop"
    with pytest.raises(SendError) as caught:
        ADAPTER.check(account(provider, credentials={**provider.credentials, "auth_token": "wrong"}))
    assert caught.value.account_broken
    assert provider.sent == []
