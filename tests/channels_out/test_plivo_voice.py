"""Calls through Plivo: the reading of requests, and the XML, in agreement with the published package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plivo import plivoxml

from channels_out.adapters import plivo
from channels_out.adapters.plivo_voice import MOST_SPOKEN, PlivoVoiceAdapter
from channels_out.calls import CallEvent, CallRequest, Instruction, NextAction
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage
from channels_out.errors import InboundError, SendError
from channels_out.events import Event, Unhandled
from channels_out.kinds import AddressKind
from channels_out.simulators import plivo_payloads as payloads
from tests.channels_out.contract import WebhookContract
from tests.channels_out.test_plivo_contract import mangled
from tests.sizes import times

ADAPTER = PlivoVoiceAdapter()
PUBLIC = "https://convo.example"
URL = f"{PUBLIC}/webhooks/voice/inbound"
NUMBER = "14155550000"
WHO = {"caller": "51999999999", "to": NUMBER, "call_uuid": "call-1"}


def request(form: Mapping[str, str] | bytes, query: str = "", secret: str = "secret") -> InboundRequest:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    url = URL + (f"?{query}" if query else "")
    kind = "application/json" if body.startswith(b"{") else plivo.FORM
    try:
        signed = plivo.signed_by_v3("POST", url, plivo.form(body))
    except InboundError:
        signed = url
    headers = {
        "content-type": kind,
        "x-plivo-signature-v3": plivo.signature(secret, signed, "05429567804466091622", True),
        "x-plivo-signature-v3-nonce": "05429567804466091622",
    }
    return InboundRequest("POST", url, headers, dict(parse_qsl(urlsplit(url).query)), body)


class TestPlivoVoiceContract(WebhookContract):
    """Requests about calls are no turns of a text channel: `call` reads them, and `parse` keeps them whole."""

    adapter: ClassVar[Adapter] = ADAPTER
    SECRET = "auth_token"
    ADDRESS = NUMBER
    LONGEST_BODY = plivo.MAX_FORM_BYTES

    def request(self, body: bytes, secret: str) -> InboundRequest:
        return request(body, secret=secret)

    def bad_signatures(self, request: InboundRequest) -> Iterator[Mapping[str, str]]:
        yield from mangled(request)

    def text_body(self) -> bytes:
        return urlencode(payloads.speech(**WHO, words="Hello there")).encode()

    def batch(self) -> tuple[bytes, list[type[Event]], list[str]]:
        return self.text_body(), [Unhandled], [NUMBER]

    def genuine_bodies(self) -> list[bytes]:
        forms = [payloads.speech(**WHO, words="Hello"), payloads.call(**WHO), payloads.hang_up(**WHO)]
        return [json.dumps(form).encode() for form in forms]

    def events(self, body: bytes) -> list[Event]:
        found = super().events(body)
        arrived = self.request(body, "secret")
        try:
            check_call(ADAPTER.call(InboundRequest("POST", URL, arrived.headers, {"turn": "1"}, body)))
        except InboundError as error:
            assert error.code == "malformed"
        return found

    def test_a_text_becomes_a_message(self) -> None:
        call = ADAPTER.call(request(self.text_body(), "turn=1"))
        assert (call.account, call.call_id, call.words, call.event) == (
            *(NUMBER, "call-1"),
            *("Hello there", CallEvent.HEARD),
        )

    def test_the_longest_body_is_read(self) -> None:
        form = payloads.speech(**WHO, words="x" * 190_000)
        assert len(ADAPTER.call(request(form, "turn=1")).words) == 190_000
        with pytest.raises(InboundError):
            ADAPTER.call(request(payloads.speech(**WHO, words="x" * plivo.MAX_FORM_BYTES), "turn=1"))

    def test_nothing_is_sent_into_a_call(self) -> None:
        account = Account(NUMBER, {"auth_id": "MA1", "auth_token": "t"})
        with pytest.raises(SendError) as caught:
            ADAPTER.send(account, OutboundMessage("m", "51999999999", AddressKind.PHONE, "Hello"))
        assert (caught.value.code, caught.value.retryable) == ("not_supported", False)
        assert ADAPTER.fetches_replies


def check_call(call: CallRequest) -> None:
    assert call.account
    assert 0 < len(call.call_id) <= 200
    assert 0 < len(call.caller.address) <= 200
    assert [text for text in (call.words, call.cause, call.caller.address, call.call_id) if "\0" in text] == []
    assert call.confidence is None or 0 <= call.confidence <= 1


# --- requests ---------------------------------------------------------------------------------------------------------
def call_of(form: Mapping[str, str], query: str = "") -> CallRequest:
    call = ADAPTER.call(request(form, query))
    check_call(call)
    return call


@pytest.mark.parametrize(
    ("form", "query", "event"),
    [
        (payloads.call(**WHO), "", CallEvent.BEGAN),
        (payloads.call(**WHO, status="ringing"), "", CallEvent.BEGAN),
        (payloads.speech(**WHO, words="Hello"), "turn=1", CallEvent.HEARD),
        (payloads.keys(**WHO, digits="12"), "turn=1", CallEvent.HEARD),
        (payloads.speech(**WHO, words=" "), "turn=1", CallEvent.SILENT),
        (payloads.call(**WHO), "turn=1&again=1", CallEvent.SILENT),
        (payloads.call(**WHO), "turn=1&waited=1", CallEvent.WAITING),
        (payloads.hang_up(**WHO), "", CallEvent.ENDED),
        (payloads.hang_up(**WHO), "turn=1", CallEvent.ENDED),
        *((payloads.call(**WHO, status=status), "", CallEvent.ENDED) for status in ("busy", "no-answer", "failed")),
        ({**payloads.speech(**WHO, words="Bye"), "CallStatus": "completed"}, "turn=1", CallEvent.HEARD),
    ],
)
def test_what_a_request_is_about(form: Mapping[str, str], query: str, event: CallEvent) -> None:
    assert call_of(form, query).event == event


def test_the_place_in_the_call_comes_back() -> None:
    call = call_of(payloads.call(**WHO), "turn=3&again=1&waited=2")
    assert (call.turn, call.again, call.waited) == (3, 1, 2)
    for query in ("turn=-1", "turn=x", "turn=", "turn=1.5", "turn=9999999999", "turn=%00"):
        assert call_of(payloads.call(**WHO), query).turn == 0


@pytest.mark.parametrize(
    ("written", "confidence"), [("0.93", 0.93), ("1", 1.0), ("0", 0.0), ("", None), ("nan", None), ("7", None)]
)
def test_the_confidence_is_a_number_or_nothing(written: str, confidence: float | None) -> None:
    assert call_of(payloads.speech(**WHO, words="Hello", confidence=written), "turn=1").confidence == confidence


def test_keys_have_a_stand_in() -> None:
    assert call_of(payloads.keys(**WHO, digits="1234"), "turn=1").words == "[keys] 1234"


@pytest.mark.parametrize(
    ("caller", "address", "kind", "phone"),
    [
        ("+51999999999", "51999999999", AddressKind.PHONE, "+51999999999"),
        ("sip:ann@phone.plivo.com", "sip:ann@phone.plivo.com", AddressKind.USER, None),
        ("anonymous", "hidden:call-1", AddressKind.USER, None),
        ("", "hidden:call-1", AddressKind.USER, None),
        ("x" * 5000, "hidden:call-1", AddressKind.USER, None),
    ],
)
def test_who_calls(caller: str, address: str, kind: AddressKind, phone: str | None) -> None:
    who = call_of(payloads.call(**{**WHO, "caller": caller})).caller
    assert (who.address, who.kind, who.phone) == (address, kind, phone)


def test_of_a_call_that_we_placed_the_numbers_change_places() -> None:
    form = {**payloads.call(caller=NUMBER, to="51999999999", call_uuid="c"), "Direction": "outbound"}
    assert (call_of(form).account, call_of(form).caller.address) == (NUMBER, "51999999999")
    assert ADAPTER.addresses(request(form)) == [NUMBER]


@pytest.mark.parametrize("missing", ["To", "CallUUID"])
def test_a_request_that_names_no_call_is_malformed(missing: str) -> None:
    form = {name: value for name, value in payloads.call(**WHO).items() if name != missing}
    with pytest.raises(InboundError) as caught:
        ADAPTER.call(request(form))
    assert caught.value.code == "malformed"


# --- XML --------------------------------------------------------------------------------------------------------------
def xml(instruction: Instruction) -> str:
    answer = ADAPTER.instruct(instruction, PUBLIC)
    assert (answer.status, answer.content_type) == (200, "application/xml")
    assert len(answer.body.encode()) < 100_000
    return answer.body


def test_listening_is_what_the_published_package_writes() -> None:
    said = 'Tom & "Ann" <3 größe'
    address = f"{URL}?turn=2&again=1"
    asked = plivoxml.GetInputElement(
        action=address,
        method="POST",
        input_type="dtmf speech",
        execution_timeout=15,
        speech_end_timeout=2,
        language="es-MX",
        redirect=True,
    ).add(plivoxml.SpeakElement(said, voice="Polly.Mia", language="es-MX"))
    theirs = plivoxml.ResponseElement().add(asked).add(plivoxml.RedirectElement(address, method="POST"))
    ours = xml(Instruction(NextAction.LISTEN, (said,), turn=2, again=1, language="es-MX", voice="Polly.Mia"))
    assert ET.canonicalize(ours) == ET.canonicalize(theirs.to_string(pretty=False))


def test_waiting_is_what_the_published_package_writes() -> None:
    address = f"{URL}?turn=2&waited=3"
    theirs = (
        plivoxml.ResponseElement()
        .add(plivoxml.SpeakElement("One moment", voice="WOMAN", language="en-US"))
        .add(plivoxml.WaitElement(length=1))
        .add(plivoxml.RedirectElement(address, method="POST"))
    )
    ours = xml(Instruction(NextAction.WAIT, ("One moment",), turn=2, waited=3))
    assert ET.canonicalize(ours) == ET.canonicalize(theirs.to_string(pretty=False))


def test_hanging_up_is_what_the_published_package_writes() -> None:
    theirs = (
        plivoxml.ResponseElement()
        .add(plivoxml.SpeakElement("Bye", voice="WOMAN", language="en-US"))
        .add(plivoxml.HangupElement())
    )
    assert ET.canonicalize(xml(Instruction(NextAction.HANG_UP, ("Bye",)))) == ET.canonicalize(
        theirs.to_string(pretty=False)
    )


@settings(max_examples=times(50, 600), deadline=None)
@given(words=st.lists(st.text(max_size=200), max_size=3), then=st.sampled_from(NextAction))
def test_case_11_no_words_make_bad_xml(words: list[str], then: NextAction) -> None:
    root = ET.fromstring(xml(Instruction(then, tuple(words), turn=1)))
    assert root.tag == "Response"
    assert {element.tag for element in root.iter()} <= {
        *("Response", "GetInput", "Speak", "Wait", "Redirect", "Hangup"),
        *("Dial", "Number"),
    }


def test_case_11_control_characters_and_surrogates_are_not_spoken() -> None:
    body = xml(
        Instruction(NextAction.HANG_UP, ("a\x00b\x07c\ud83dd\ufffee\t👨‍👩‍👧 مرحبا</Speak><Hangup/>", "\x01", ""))
    )
    [spoken] = ET.fromstring(body).findall("Speak")
    assert spoken.text == "abcde\t👨‍👩‍👧 مرحبا</Speak><Hangup/>"


def test_case_14_long_words_are_several_speaks_and_never_too_much() -> None:
    text = "A sentence that goes on. " * 200
    spoken = [
        element.text or "" for element in ET.fromstring(xml(Instruction(NextAction.HANG_UP, (text,)))).findall("Speak")
    ]
    assert len(spoken) > 1
    assert max(len(part) for part in spoken) <= 3000
    assert "".join(spoken).strip() == text.strip()
    root = ET.fromstring(xml(Instruction(NextAction.HANG_UP, ("é" * 500_000,))))
    assert 0 < sum(len((element.text or "").encode()) for element in root.findall("Speak")) <= MOST_SPOKEN


def test_the_address_stays_ours_and_is_absolute() -> None:
    root = ET.fromstring(xml(Instruction(NextAction.LISTEN, ("Hi",), turn=1)))
    asked, redirect = root.find("GetInput"), root.find("Redirect")
    assert asked is not None
    assert redirect is not None
    assert asked.get("action") == redirect.text == f"{URL}?turn=1"
