"""Phone calls end to end: Plivo's signed forms in, its XML out, the reply written by the dispatcher's own steps."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from channels_out.simulators import plivo_payloads as payloads
from conversations.engines import registry as engines
from conversations.engines.contract import EngineError, Reply
from conversations.models import Assistant, CallAnswer, Chunk, Contact, Conversation, InboundEvent, Message, Turn
from conversations.services.inbound import signatures
from conversations.services.replies.dispatcher import Dispatcher
from conversations.services.retention import retention
from conversations.services.tenants import setup
from conversations.services.voice import calls, spoken
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.test_plivo_sms_webhook import post
from tests.fakes.plivo import CALLER, FakePlivo

pytestmark = pytest.mark.django_db
ANSWER_URL = "/webhooks/voice/inbound"
ENGLISH = spoken.PHRASES["en"]


@pytest.fixture(autouse=True)
def _public(settings: Any) -> None:
    settings.PUBLIC_BASE_URL = "https://convo.example"
    settings.VOICE_REPLY_SECONDS = 0.0  # who answers does so between two requests


@pytest.fixture
def plivo():
    with FakePlivo() as fake:
        yield fake


@pytest.fixture
def account(plivo, shop):
    return setup.create_channel_account(
        shop, channel="voice", provider="plivo", address="+1 415 555 0000", credentials=plivo.credentials
    )


class Phone:
    """A caller at Plivo: what they hear, and where Plivo goes next."""

    def __init__(self, plivo: FakePlivo, call: str = "call-1", caller: str = CALLER) -> None:
        self.plivo, self.call, self.caller = plivo, call, caller
        self.path, self.heard, self.is_over = ANSWER_URL, "", False

    def dials(self) -> str:
        return self._goes(self.plivo.turn(ANSWER_URL, self.call, caller=self.caller))

    def says(self, words: str, **more: Any) -> str:
        return self._goes(self.plivo.turn(self.path, self.call, words, caller=self.caller, **more))

    def waits(self) -> str:
        """Nothing is said, or Plivo was asked to come back."""
        return self._goes(self.plivo.turn(self.path, self.call, caller=self.caller))

    def hangs_up(self) -> None:
        self._goes(self.plivo.hang_up(self.call, caller=self.caller))

    def _goes(self, webhook: Any) -> str:
        response = post(webhook)
        self.xml = response.content.decode()
        assert (response.status_code, response["Content-Type"]) == (200, "application/xml"), self.xml
        root = ET.fromstring(self.xml)
        assert root.tag == "Response"
        self.is_over = root.find("Hangup") is not None
        self.is_asked = root.find("GetInput") is not None
        self.heard = " ".join(element.text or "" for element in root.iter("Speak"))
        if not self.is_over:
            dial = root.find("Dial")
            address = urlsplit(root.findtext("Redirect", "") if dial is None else dial.attrib["action"])
            assert f"{address.scheme}://{address.netloc}" == "https://convo.example"
            self.path = f"{address.path}?{address.query}"
        return self.heard


@pytest.fixture
def phone(plivo, account):
    return Phone(plivo)


def transcript(role_prefix: tuple[str, ...] = ("voice", "ai")) -> list[tuple[str, str]]:
    return list(Chunk.objects.filter(role__in=role_prefix).order_by("id").values_list("role", "content"))


def test_a_call_is_a_session_that_greets_listens_answers_and_ends(phone, account):
    assert phone.dials() == "Hello, how can I help you?"
    assert phone.is_asked
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.thread, conversation.channel_account) == ("voice", "call-1", account)
    assert (Contact.objects.get().phone, conversation.is_guest) == ("+51999999999", False)

    assert phone.says("Where is my parcel?") == ENGLISH[spoken.MOMENT]
    assert not phone.is_asked, "Plivo comes back by itself"
    assert reply_to_all() == 1
    assert "offline" in phone.waits()
    assert phone.is_asked
    phone.says("And when will it come?")
    reply_to_all()
    assert "offline" in phone.waits()
    phone.hangs_up()

    conversation.refresh_from_db()
    assert (conversation.status, conversation.ended_by) == ("closed", "user")
    assert conversation.end_reason == "hung up NORMAL_CLEARING"
    assert [role for role, _ in transcript()] == ["ai", "voice", "ai", "voice", "ai"]
    assert [content for role, content in transcript(("voice",))] == ["Where is my parcel?", "And when will it come?"]
    assert list(Chunk.objects.order_by("position").values_list("position", flat=True)) == list(range(1, 8))


def test_nothing_is_left_for_the_dispatcher_to_send(phone):
    phone.dials()
    phone.says("Hello")
    reply_to_all()
    assert send_all() == 0
    phone.waits()
    assert send_all() == 0
    spoken_words = Message.objects.order_by("chunk_id").values_list("status", "text")
    assert [status for status, _ in spoken_words] == ["sent", "sent"]
    assert [text for _, text in spoken_words] == [content for role, content in transcript(("ai",))]


def test_what_nobody_heard_any_more_says_so(phone):
    phone.dials()
    phone.says("Hello")
    reply_to_all()
    phone.hangs_up()
    phone.hangs_up()
    assert list(Message.objects.order_by("chunk_id").values_list("status", "code")) == [
        ("sent", ""),
        ("cancelled", "hung_up"),
    ]


def test_case_19_a_turn_that_is_posted_again_gets_the_same_and_is_no_second_turn(phone, plivo):
    phone.dials()
    first = plivo.turn(phone.path, "call-1", "Hello", confidence=0.9)
    before = phone._goes(first), phone.xml
    assert (phone._goes(first), phone.xml) == before
    reply_to_all()
    second = plivo.turn(phone.path, "call-1")
    answered = phone._goes(second), phone.xml
    assert "offline" in answered[0]
    assert (phone._goes(second), phone.xml) == answered
    assert (phone._goes(first), phone.xml) == before, "also after its answer"
    greeting = plivo.turn(ANSWER_URL, "call-1")
    assert phone._goes(greeting) == "Hello, how can I help you?"
    assert reply_to_all() == 0
    assert len(transcript(("voice",))) == 1
    assert Conversation.objects.count() == 1


def test_a_reply_that_takes_longer_is_waited_for_and_in_the_end_asked_around(phone, monkeypatch):
    phone.dials()
    phone.says("Hello")
    for _ in range(3):
        phone.waits()
        assert not phone.is_asked
    monkeypatch.setattr(calls, "WAITS_AT_MOST", timedelta(0))
    assert phone.waits() == ENGLISH[spoken.NO_ANSWER]
    assert phone.is_asked

    reply_to_all()  # it came late: they hear it with the next
    phone.says("Are you there?")
    assert "offline" in phone.heard or "offline" in phone.waits()


def test_case_10_silence_is_asked_again_and_then_the_call_ends(phone):
    phone.dials()
    assert phone.waits() == ENGLISH[spoken.NOT_HEARD]
    assert phone.is_asked
    assert phone.says(" ") == ENGLISH[spoken.NOT_HEARD], "an action with empty speech is silence as well"
    assert phone.waits() == ENGLISH[spoken.GOODBYE]
    assert phone.is_over
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.ended_by, conversation.end_reason) == ("closed", "system", "nobody spoke")
    phone.hangs_up()
    assert not conversation.events.filter(kind="closed").count() > 1


def test_case_19_words_that_plivo_is_unsure_of_are_asked_again_and_in_the_end_taken(phone):
    phone.dials()
    assert phone.says("mumble", confidence=0.1) == ENGLISH[spoken.NOT_UNDERSTOOD]
    assert phone.says("rumble", confidence=0.39) == ENGLISH[spoken.NOT_UNDERSTOOD]
    assert transcript(("voice",)) == []
    phone.says("I said jumble", confidence=0.2)
    assert transcript(("voice",)) == [("voice", "I said jumble")]
    kept = InboundEvent.objects.order_by("id").values_list("raw__Speech", flat=True)
    assert list(kept) == ["mumble", "rumble"]


def test_keys_are_words_too(phone, plivo):
    phone.dials()
    phone._goes(plivo.post(phone.path, payloads.keys(caller=CALLER, to=plivo.number, call_uuid="call-1", digits="42")))
    assert transcript(("voice",)) == [("voice", "[keys] 42")]


def test_what_staff_say_meanwhile_is_heard(phone, door):
    phone.dials()
    pk = Conversation.objects.get().pk
    status, envelope = door.call("POST", f"/conversations/{pk}/send", {"role": "ai", "content": "One thing more."})
    assert (status, envelope["data"]["messages"]) == (201, [])
    assert phone.waits() == "One thing more."
    assert phone.is_asked


def test_case_19_who_hangs_up_while_the_reply_is_written_is_not_spoken_to(phone, plivo):
    phone.dials()
    turn = phone.path
    phone.says("Hello")
    phone.hangs_up()
    assert reply_to_all() == 0
    phone.waits()
    assert phone.is_over
    late = plivo.turn(turn.replace("turn=1", "turn=2"), "call-1", "Too late")
    phone._goes(late)
    assert phone.is_over
    assert Conversation.objects.count() == 1, "nothing opens another session for one call"
    assert transcript(("voice",)) == [("voice", "Hello")]
    assert InboundEvent.objects.get().raw["Speech"] == "Too late"


def test_a_call_that_nobody_answered_is_a_conversation_that_has_ended(phone, plivo, door):
    for _ in range(2):
        phone.hangs_up()
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.thread, conversation.status) == ("voice", "call-1", "closed")
    assert (conversation.ended_by, conversation.end_reason) == ("user", "nobody answered NORMAL_CLEARING")
    shown = door.get(f"/conversations/{conversation.pk}")["chunks"][-1]
    assert (shown["role"], shown["content"]) == ("voice", "[missed call]")
    assert [each["text"] for each in shown["activities"]] == ["called, and nobody answered"]
    assert reply_to_all() == 0
    assert not InboundEvent.objects.exists()

    phone.dials()
    assert phone.is_over, "the call is over before we were asked"
    again = Phone(plivo, "call-2")
    again.dials()
    again.says("I called before")
    reply_to_all()
    prompt = Turn.objects.get().prompt["messages"]
    assert any("The person called, and nobody answered." in each["content"] for each in prompt), prompt


def test_the_end_of_a_call_that_we_placed_is_no_missed_call(phone, plivo):
    form = payloads.hang_up(caller=plivo.number, to=CALLER, call_uuid="call-1") | {"Direction": "outbound"}
    phone._goes(plivo.post(ANSWER_URL, form))
    assert not Conversation.objects.exists()
    assert InboundEvent.objects.get().reason == "not_a_turn"


def test_a_session_that_is_closed_by_staff_ends_the_call(phone, door):
    phone.dials()
    pk = Conversation.objects.get().pk
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 200
    phone.says("Hello")
    assert phone.is_over


def test_last_words_are_heard_before_the_call_ends(phone):
    """The caller says goodbye: the session ends with a last reply."""
    Assistant.objects.update(goodbye_phrases="bye")
    phone.dials()
    phone.says("Bye!")
    reply_to_all()
    assert Conversation.objects.get().status == "closed"
    assert "offline" in phone.waits()
    assert phone.is_over
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}


def test_the_next_call_is_another_session_of_the_same_person(phone, plivo):
    phone.dials()
    phone.hangs_up()
    Phone(plivo, "call-2").dials()
    Phone(plivo, "call-3", caller="anonymous").dials()
    assert Conversation.objects.count() == 3
    assert Contact.objects.count() == 2
    assert Conversation.objects.get(thread="call-3").is_guest


def test_the_assistant_s_words_language_and_voice(phone, shop):
    Assistant.objects.update(greeting="¡Hola! ¿En qué le ayudo?", spoken_language="es-MX", voice="Polly.Mia")
    assert phone.dials() == "¡Hola! ¿En qué le ayudo?"
    [asked] = ET.fromstring(phone.xml).iter("GetInput")
    [speak] = asked.iter("Speak")
    assert (asked.get("language"), speak.get("language"), speak.get("voice")) == ("es-MX", "es-MX", "Polly.Mia")
    assert phone.waits() == spoken.PHRASES["es"][spoken.NOT_HEARD]


def test_a_call_without_its_beginning_is_taken_up(phone):
    """The answer URL was answered by somebody else, or by us while the database was away."""
    phone.path = f"{ANSWER_URL}?turn=1"
    phone.says("Hello")
    reply_to_all()
    assert "offline" in phone.waits()


def test_an_engine_that_fails_for_good_lets_the_fallback_be_heard(phone, monkeypatch):
    class Broken:
        name = "offline"

        def reply(self, request: Any) -> Reply:
            raise EngineError("No.", code="unauthorized", retryable=False)

    monkeypatch.setitem(engines.ENGINES, "offline", Broken())
    phone.dials()
    phone.says("Hello")
    reply_to_all()
    assert phone.waits() == Assistant.objects.get().fallback


# --- whatever goes wrong ----------------------------------------------------------------------------------------------
def test_a_bad_signature_is_refused_and_changes_nothing(phone, plivo):
    form = payloads.call(caller=CALLER, to=plivo.number, call_uuid="call-1")
    for path in (ANSWER_URL, f"{ANSWER_URL}?turn=1", "/webhooks/voice/status"):
        assert post(plivo.post(path, form, token="somebody else's")).status_code == 403
    turned = plivo.post(f"{ANSWER_URL}?turn=1", form)
    assert post(type(turned)(f"{ANSWER_URL}?turn=2", turned.body, turned.headers)).status_code == 403
    assert not Conversation.objects.exists()


def test_case_13_a_number_that_is_nobody_s_is_told_so(phone, plivo):
    form = payloads.call(caller=CALLER, to="14155559999", call_uuid="call-1")
    phone._goes(plivo.post(ANSWER_URL, form))
    assert phone.is_over
    assert InboundEvent.objects.get().reason == "unknown_account"
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("form", [{"To": "14155550000"}, {"CallUUID": "c"}, {"a": "b"}])
def test_case_20_a_request_that_makes_no_sense_gets_xml(phone, plivo, form):
    phone._goes(plivo.post(ANSWER_URL, form))
    assert phone.is_over
    assert InboundEvent.objects.get().reason == "malformed"


def test_our_own_fault_is_xml_and_the_call_goes_on(phone, account, monkeypatch):
    phone.dials()
    monkeypatch.setattr(calls, "_append_words", lambda *_: 1 / 0)
    assert phone.says("Hello") == ENGLISH[spoken.TROUBLE]
    assert phone.is_asked
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.channel_account) == ("processing_failed", account)
    assert "Speech=Hello" in kept.raw["request_body"]
    monkeypatch.undo()
    phone.says("Hello again")
    reply_to_all()
    assert "offline" in phone.waits()


def test_a_database_that_is_away_is_xml(phone, monkeypatch):
    def away(*_: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(signatures, "active_accounts", away)
    monkeypatch.setattr(connection, "close", lambda: None)  # the test's own transaction
    assert phone.dials() == ENGLISH[spoken.SORRY]
    assert phone.is_over
    phone.path = f"{ANSWER_URL}?turn=3"
    assert phone.says("Hello") == ENGLISH[spoken.TROUBLE]
    assert phone.is_asked
    assert phone.path == f"{ANSWER_URL}?turn=3&again=1"


def test_case_19_an_application_that_is_set_to_get_works_as_well(phone, plivo):
    who = {"caller": CALLER, "to": plivo.number, "call_uuid": "call-1"}
    assert phone._goes(plivo.get(ANSWER_URL, payloads.call(**who))) == "Hello, how can I help you?"
    phone._goes(plivo.get(phone.path, payloads.speech(**who, words="Größe?")))
    assert transcript(("voice",)) == [("voice", "Größe?")]


def test_case_13_one_tenant_s_token_does_not_speak_in_another_s_call(phone, plivo):
    phone.dials()
    other = factories.ClientFactory()
    credentials = {**plivo.credentials, "auth_token": "theirs"}
    setup.create_channel_account(
        other, channel="voice", provider="plivo", address="14155559999", credentials=credentials
    )
    form = payloads.speech(caller=CALLER, to=plivo.number, call_uuid="call-1", words="I am somebody else")
    assert post(plivo.post(f"{ANSWER_URL}?turn=1", form, token="theirs")).status_code == 403
    assert transcript(("voice",)) == []


def test_the_same_number_speaks_by_sms_and_on_the_phone(phone, plivo, shop):
    setup.create_channel_account(
        shop,
        channel="sms",
        provider="plivo",
        address="14155550000",
        credentials=plivo.credentials,
        base_url=plivo.base_url,
    )
    phone.dials()
    post(plivo.sms("Hello by SMS"))
    reply_to_all()
    send_all()
    assert [sent.to for sent in plivo.sent] == [CALLER]
    assert Contact.objects.count() == 1
    assert set(Conversation.objects.values_list("channel", flat=True)) == {"voice", "sms"}


def test_what_was_answered_goes_with_its_session(phone, plivo):
    hidden = Phone(plivo, "call-9", caller="anonymous")
    hidden.dials()
    hidden.hangs_up()
    assert CallAnswer.objects.exists()
    Conversation.objects.update(status="expired", ended_by="timeout", ended_at=timezone.now() - timedelta(days=2))
    retention.purge_guests(timezone.now())
    assert not CallAnswer.objects.exists()


# --- waiting for real -------------------------------------------------------------------------------------------------
class Slow:
    """An engine that takes its time."""

    name = "offline"

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def reply(self, request: Any) -> Reply:
        self.may_answer.wait(20)
        return Reply(text="It comes tomorrow.", engine=self.name)


@pytest.mark.django_db(transaction=True)
def test_the_reply_is_waited_for_while_the_dispatcher_writes_it(phone, settings, monkeypatch):
    settings.VOICE_REPLY_SECONDS = 15.0
    engine = Slow()
    monkeypatch.setitem(engines.ENGINES, "offline", engine)
    phone.dials()
    dispatcher = Dispatcher(patience=5)
    running = threading.Thread(target=dispatcher.run)
    running.start()
    try:
        answered = threading.Thread(target=lambda: (phone.says("When does it come?"), connection.close()))
        answered.start()
        time.sleep(0.3)
        assert answered.is_alive()
        engine.may_answer.set()
        answered.join(15)
    finally:
        dispatcher.stop()
        running.join(20)
    assert phone.heard == "It comes tomorrow."
    assert phone.is_asked


@pytest.mark.django_db(transaction=True)
def test_who_waits_holds_no_connection_and_no_transaction(phone, settings):
    settings.VOICE_REPLY_SECONDS = 3
    phone.dials()
    waiting = threading.Thread(target=lambda: (phone.says("Hello"), connection.close()))
    waiting.start()
    others = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
    seen: list[int] = []
    while waiting.is_alive():
        assert len(seen) < 3_000, f"the turn does not end; connections seen: {seen[-20:]}"
        with connection.cursor() as cursor:
            cursor.execute(others)
            seen += cursor.fetchone()
        time.sleep(0.02)
    assert phone.heard == ENGLISH[spoken.MOMENT]
    assert seen.count(0) > len(seen) / 2, "a connection is held while the reply is waited for"


@pytest.mark.django_db(transaction=True)
def test_the_same_turn_twice_at_once_is_one_turn_and_one_answer(plivo, account, settings):
    settings.VOICE_REPLY_SECONDS = 0.5
    Phone(plivo).dials()
    phones = [Phone(plivo) for _ in range(3)]
    together = threading.Barrier(len(phones))

    def speak(phone: Phone) -> None:
        phone.path = f"{ANSWER_URL}?turn=1"
        together.wait(10)
        phone.says("Hello")
        connection.close()

    threads = [threading.Thread(target=speak, args=(phone,)) for phone in phones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({phone.xml for phone in phones}) == 1
    assert Chunk.objects.filter(role="voice").count() == 1
    assert Conversation.objects.get().inbound_sequence == 1


@pytest.mark.django_db(transaction=True)
def test_when_enough_wait_the_next_is_asked_to_come_back_at_once(plivo, account, settings, monkeypatch):
    settings.VOICE_REPLY_SECONDS = 30
    none_free = threading.BoundedSemaphore(1)
    none_free.acquire()
    monkeypatch.setattr(calls, "_waiters", lambda: none_free)
    phone = Phone(plivo)
    phone.dials()
    began = time.monotonic()
    assert phone.says("Hello") == ""
    assert not phone.is_asked
    assert time.monotonic() - began < 25


def test_choices_are_said_with_their_numbers_and_a_pressed_key_is_the_choice(phone, plivo, door):
    phone.dials()
    pk = Conversation.objects.get().pk
    body = {"content": "Which size?", "choices": ["Small", "Large"]}
    assert door.call("POST", f"/conversations/{pk}/send", body)[0] == 201
    assert phone.waits() == "Which size?\n\n1. Small\n2. Large"
    phone._goes(plivo.post(phone.path, payloads.keys(caller=CALLER, to=plivo.number, call_uuid="call-1", digits="2")))
    chunk = Chunk.objects.filter(role="voice").last()
    assert (chunk.content, chunk.metadata["title"]) == ("[keys] 2", "Large")
