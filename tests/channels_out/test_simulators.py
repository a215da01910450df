"""The simulators against the adapters: each end understands the other, for every provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from channels_out import registry
from channels_out.adapters.sandbox import SandboxAdapter
from channels_out.calls import CallEvent, CallRequest, Instruction, NextAction, VoiceAdapter
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage
from channels_out.errors import InboundError, SendError
from channels_out.events import Activity, ColleagueMessage, InboundMessage, Receipt, WatermarkReceipt
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind, ReceiptStatus
from channels_out.simulators.contract import (
    Gesture,
    InjectedFault,
    PlayedGesture,
    SimulatedMessage,
    Simulator,
    UnsignedWebhook,
)
from channels_out.simulators.people import PEOPLE, person
from channels_out.simulators.plivo_simulator import PlivoVoiceSimulator
from channels_out.simulators.registry import SIMULATORS
from tests.fakes.simulated import SimulatedProvider

HOST = "https://convo.example"
AT = datetime.now(UTC).replace(microsecond=0)
ANA = PEOPLE[0]
OUR_ID = "11111111-2222-4333-8444-555555555555"

PROVIDERS = [each for each in SIMULATORS if each.provider != SandboxAdapter.provider]
BY_MESSAGE = [each for each in PROVIDERS if not each.is_call]


def named(simulator: Simulator) -> str:
    return f"{simulator.provider} {simulator.channel}"


def adapter_of(simulator: Simulator) -> Adapter:
    return registry.adapter_for(simulator.provider, simulator.channel)


def fresh(simulator: Simulator) -> Account:
    address, credentials = simulator.new_account()
    return Account(address, credentials)


def arrived(
    simulator: Simulator, account: Account, webhook: UnsignedWebhook, *, signer: Account | None = None
) -> InboundRequest:
    """Return the webhook as our endpoint receives it."""
    url = HOST + webhook.path
    signed = simulator.signed(signer or account, webhook, url, datetime.now(UTC))
    headers = {"content-type": webhook.content_type} | {name.lower(): value for name, value in signed.items()}
    return InboundRequest(webhook.method, url, headers, dict(parse_qsl(urlsplit(url).query)), webhook.body)


def message(simulator: Simulator, account: Account, text: str = "Hello", at: datetime = AT) -> UnsignedWebhook:
    return simulator.message(account, ANA, SimulatedMessage(text, simulator.new_message_id(), at))


@pytest.fixture(params=BY_MESSAGE, ids=named)
def simulator(request: pytest.FixtureRequest) -> Simulator:
    return request.param


@pytest.fixture
def provider(simulator: Simulator) -> Iterator[SimulatedProvider]:
    with SimulatedProvider(simulator) as provider:
        yield provider


def outbound(simulator: Simulator, text: str = "Hello") -> OutboundMessage:
    return OutboundMessage(OUR_ID, simulator.address_of(ANA), kind_of(simulator), text)


def kind_of(simulator: Simulator) -> AddressKind:
    kinds = {"messenger": AddressKind.PSID, "orb": AddressKind.DEVICE}
    return kinds.get(simulator.channel, AddressKind.PHONE)


def test_what_is_simulated_has_an_adapter():
    theirs = {(each.provider, each.channel) for each in registry.ADAPTERS if each.provider != "sandbox"}
    assert {(each.provider, each.channel) for each in PROVIDERS} <= theirs


def test_the_people_do_not_exist():
    assert [person(each.number) for each in PEOPLE] == list(PEOPLE)
    assert person(99) is None
    for each in PEOPLE:
        assert re.fullmatch(r"120255501\d\d", each.phone)


def test_what_a_person_says_passes_the_signature_and_the_adapter(simulator):
    account, adapter = fresh(simulator), adapter_of(simulator)
    for text in ("Hello", "¿Dónde está\nmi pedido? 👩🏽‍🚀 <b> & \\ / \"'", "مرحبا"):
        request = arrived(simulator, account, message(simulator, account, text))
        assert adapter.recognises(request)
        assert adapter.addresses(request) == [account.address]
        adapter.verify(request, account)
        [event] = adapter.parse(request)
        assert isinstance(event, InboundMessage), event
        assert (event.text, event.account) == (text, account.address)
        assert event.sender.address == simulator.address_of(ANA)
        assert event.message_id


def test_two_messages_have_two_ids_and_one_delivered_twice_has_one(simulator):
    account, adapter = fresh(simulator), adapter_of(simulator)
    one, other = message(simulator, account), message(simulator, account)
    ids = [adapter.parse(arrived(simulator, account, each))[0].message_id for each in (one, one, other)]
    assert ids[0] == ids[1] != ids[2]


def test_a_wrong_secret_and_another_account_s_are_refused(simulator):
    account, adapter = fresh(simulator), adapter_of(simulator)
    for signer in (simulator.with_wrong_secret(account), fresh(simulator)):
        request = arrived(simulator, account, message(simulator, account), signer=signer)
        with pytest.raises(InboundError) as caught:
            adapter.verify(request, account)
        assert caught.value.code == "invalid_signature"


def test_a_send_is_taken_and_each_of_its_receipts_is_understood(simulator, provider):
    adapter = adapter_of(simulator)
    result = adapter.send(provider.account, outbound(simulator, "Your order is on its way."))
    [taken] = provider.taken
    assert (taken.text, taken.to) == ("Your order is on its way.", simulator.address_of(ANA))
    for number, status in enumerate(simulator.receipts):
        webhook = simulator.receipt(provider.account, replace(taken, sequence=number), status, datetime.now(UTC))
        request = arrived(simulator, provider.account, webhook)
        assert adapter.recognises(request)
        adapter.verify(request, provider.account)
        events = adapter.parse(request)
        told = [event for event in events if isinstance(event, Receipt | WatermarkReceipt)]
        assert status in {event.status for event in told}
        assert {event.provider_message_id for event in told if isinstance(event, Receipt)} <= {taken.message_id}
    assert result.provider_message_id == taken.message_id


@pytest.mark.parametrize("fault", list(InjectedFault))
def test_what_goes_wrong_at_the_provider_is_what_the_adapter_says(simulator, provider, fault):
    if fault not in simulator.faults:
        pytest.skip(f"{simulator.provider} does not go wrong like that")
    provider.account = replace(provider.account, timeout=(2.0, 0.3))
    provider.inject(fault)
    with pytest.raises(SendError) as caught:
        adapter_of(simulator).send(provider.account, outbound(simulator))
    error = caught.value
    told = (error.retryable, bool(error.throttled), error.ambiguous, error.account_broken)
    assert (
        told
        == {
            InjectedFault.THROTTLED: (True, True, False, False),
            InjectedFault.ERROR: (True, False, False, False),
            InjectedFault.SILENT: (False, False, True, False),
            InjectedFault.UNDELIVERABLE: (False, False, False, False),
            InjectedFault.REFUSED: (False, False, False, True),
        }[fault]
    )
    assert len(provider.taken) == (fault is InjectedFault.SILENT)


def test_wrong_credentials_are_refused(simulator, provider):
    with pytest.raises(SendError) as caught:
        adapter_of(simulator).send(simulator.with_wrong_secret(provider.account), outbound(simulator))
    assert caught.value.account_broken
    assert provider.taken == []


def test_a_late_message_says_when_it_was_written(simulator):
    account, written = fresh(simulator), AT - timedelta(hours=2)
    [event] = adapter_of(simulator).parse(arrived(simulator, account, message(simulator, account, at=written)))
    assert event.occurred_at in (None, written)


def test_whatsapp_names_somebody_who_hides_the_number_by_a_user_id():
    [whatsapp] = [each for each in SIMULATORS if each.provider == "whatsapp"]
    account, finn = fresh(whatsapp), PEOPLE[-1]
    webhook = whatsapp.message(account, finn, SimulatedMessage("Hello", whatsapp.new_message_id(), AT))
    [event] = adapter_of(whatsapp).parse(arrived(whatsapp, account, webhook))
    assert (event.sender.kind, event.sender.address, event.sender.phone) == (
        AddressKind.BSUID,
        whatsapp.address_of(finn),
        None,
    )
    assert finn.phone not in webhook.body.decode()


def test_receipts_are_those_that_the_domain_knows(simulator):
    assert set(simulator.receipts) <= set(ReceiptStatus)


# --- calls ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def voice() -> PlivoVoiceSimulator:
    return PlivoVoiceSimulator()


def told(voice: PlivoVoiceSimulator, account: Account, webhook: UnsignedWebhook) -> CallRequest:
    request = arrived(voice, account, webhook)
    adapter = adapter_of(voice)
    assert isinstance(adapter, VoiceAdapter)
    assert adapter.recognises(request)
    assert adapter.addresses(request) == [account.address]
    adapter.verify(request, account)
    return adapter.call(request)


def test_a_call_its_turns_and_its_end_are_understood(voice):
    account, call_id = fresh(voice), voice.new_message_id()
    began = told(voice, account, voice.call(account, ANA, call_id))
    assert (began.event, began.call_id, began.caller.address) == (CallEvent.BEGAN, call_id, ANA.phone)
    path = "/webhooks/voice/inbound?turn=1"
    said = voice.message(account, ANA, SimulatedMessage("Where is my parcel? & <b>", call_id, AT, call_id, path))
    turn = told(voice, account, said)
    assert (turn.event, turn.turn, turn.words) == (CallEvent.HEARD, 1, "Where is my parcel? & <b>")
    silent = told(voice, account, voice.continuation(account, ANA, call_id, path))
    assert (silent.event, silent.turn) == (CallEvent.SILENT, 1)
    assert told(voice, account, voice.hang_up(account, ANA, call_id)).event == CallEvent.ENDED


@pytest.mark.parametrize("then", list(NextAction))
def test_what_a_caller_hears_is_what_we_told_the_provider(voice, then):
    adapter = adapter_of(voice)
    assert isinstance(adapter, VoiceAdapter)
    instruction = Instruction(then, say=("One & <two>",), turn=3, number="+51911111111")
    answer = adapter.instruct(instruction, HOST)
    heard = voice.heard(HttpAnswer(answer.status, {}, answer.body.encode()))
    rings = then is NextAction.TRANSFER
    assert heard.text == "One & <two>" + ("\n(It rings at 51911111111.)" if rings else "")
    assert (heard.at_once, heard.over) == (rings or then is NextAction.WAIT, then is NextAction.HANG_UP)
    onward = "/webhooks/voice/inbound?turn=3" + ("&transfer=1" if rings else "")
    assert heard.path == ("" if heard.over else onward)
    assert bool(heard.silence) == (then is NextAction.LISTEN)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html/>", b"<Response>", b"\xff", b'<?xml version="1.0"?><Response/>'])
@pytest.mark.parametrize("status", [200, 403, 500])
def test_an_answer_that_is_none_ends_the_call(voice, body, status):
    assert voice.heard(HttpAnswer(status, {}, body)).over


# --- gestures
@pytest.mark.parametrize("provider", ["whatsapp", "dialog360", "messenger"])
@pytest.mark.parametrize("gesture", list(Gesture), ids=str)
def test_the_adapter_reads_each_gesture_as_what_was_done(provider, gesture):
    simulator = next(each for each in SIMULATORS if each.provider == provider)
    adapter = registry.adapter_for(provider, simulator.channel)
    address, credentials = simulator.new_account()
    account, ana = Account(address, credentials), PEOPLE[0]
    played = PlayedGesture(gesture, "m.ABOUT", "👍", "m.OWN", datetime(2026, 11, 30, 12, tzinfo=UTC), choice="pk")
    body = simulator.gesture(account, ana, played).body
    [event] = adapter.parse(InboundRequest("POST", "", {}, {}, body))
    assert event.account == address
    if gesture is Gesture.PRESS:
        assert isinstance(event, InboundMessage)
        assert (event.text, event.metadata["payload"], event.message_id) == ("👍", "pk", "m.OWN")
    elif gesture is Gesture.ECHO:
        assert isinstance(event.happened, ColleagueMessage)
        assert (event.happened.text, event.happened.to.address) == ("👍", simulator.address_of(ana))
    else:
        assert isinstance(event.happened, Activity)
        kinds = {Gesture.REACT: "reaction", Gesture.EDIT: "edit", Gesture.DELETE: "deletion"}
        assert (event.happened.kind, event.happened.about) == (kinds[gesture], "m.ABOUT")
        assert event.happened.sender.address == simulator.address_of(ana)
