"""A call is put through to a person's phone: by the model's tool, by staff, or where a rule calls a person."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

from channels_out.simulators import plivo_payloads as payloads
from conversations.models import Assistant, Conversation, ConversationEvent
from conversations.services.tenants import setup
from tests.conftest import reply_to_all
from tests.conversations.back_office import sign_in
from tests.conversations.test_plivo_calls import Phone
from tests.fakes.openai import FakeOpenAI
from tests.fakes.plivo import CALLER, FakePlivo

pytestmark = pytest.mark.django_db
PERSON = "+51911111111"


class Line(Phone):
    """A caller, who can be transferred."""

    @property
    def dialled(self) -> dict[str, str]:
        """Whom Plivo calls now, and how; {} if nobody."""
        dial = ET.fromstring(self.xml).find("Dial")
        return {} if dial is None else {**dial.attrib, "number": dial.findtext("Number", "")}

    def transfer_ends(self, status: str) -> str:
        """The words that the caller hears after Plivo tried the number."""
        form = payloads.call(caller=CALLER, to=self.plivo.number, call_uuid=self.call)
        return self._goes(self.plivo.post(self.path, {**form, "DialStatus": status, "DialHangupCause": "cause"}))


@pytest.fixture
def line(shop, settings) -> Iterator[Line]:
    """A phone, and an assistant that knows whom to transfer calls to."""
    settings.PUBLIC_BASE_URL, settings.VOICE_REPLY_SECONDS = "https://convo.example", 0.0
    Assistant.objects.filter(client=shop).update(transfer_number=PERSON)
    with FakePlivo() as plivo:
        number = {"address": "+1 415 555 0000", "credentials": plivo.credentials}
        setup.create_channel_account(shop, channel="voice", provider="plivo", **number)
        phone = Line(plivo)
        phone.dials()
        yield phone


def events(*kinds: str) -> list[str]:
    found = ConversationEvent.objects.filter(kind__in=kinds).order_by("id")
    return list(found.values_list("kind", flat=True))


def says(line: Line, words: str) -> str:
    """The caller speaks, and hears the reply."""
    line.says(words)
    reply_to_all()
    return line.waits()


@pytest.fixture
def model(shop, settings) -> Iterator[FakeOpenAI]:
    """A model that puts the caller through."""
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.then("reply", text="I put you through.", tool_calls=[("transfer_call", {"reason": "a refund"})])
        fake.then("reply", text="What else?")
        yield fake


def test_the_model_puts_the_caller_through_after_its_words(line, model):
    assert says(line, "I want my money back") == "I put you through."
    assert line.dialled["number"] == PERSON.removeprefix("+")
    assert line.dialled["callerId"] == "14155550000"
    assert line.transfer_ends("completed") == ""
    assert line.is_over
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.end_reason) == ("closed", "the call was transferred")
    [requested] = ConversationEvent.objects.filter(kind="transfer_requested")
    assert (requested.actor, requested.cause, requested.data) == ("assistant", "a refund", {"number": PERSON})
    assert events("transfer_requested", "call_transferred") == ["transfer_requested", "call_transferred"]


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "timeout", "cancel"])
def test_where_nobody_answers_the_assistant_goes_on(line, model, status):
    says(line, "I want my money back")
    heard = line.transfer_ends(status)
    assert heard == "Sorry, nobody is free to talk to you right now. What else can I do for you?"
    assert line.is_asked
    assert says(line, "Then tell me the time") == "What else?"
    assert line.dialled == {}
    assert events("transfer_failed") == ["transfer_failed"]


def test_a_request_that_plivo_posts_again_gets_the_same_answer(line, model):
    says(line, "I want my money back")
    path, before = line.path, line.xml
    first = line.transfer_ends("busy")
    line.path = path
    assert line.transfer_ends("busy") == first
    assert events("transfer_failed") == ["transfer_failed"]
    assert "Dial" in before


def test_a_rule_that_calls_a_person_puts_the_caller_through(line, shop):
    Assistant.objects.filter(client=shop).update(human_phrases="a human")
    assert says(line, "Give me a human") == "A colleague will take it from here."
    assert line.dialled["number"] == PERSON.removeprefix("+")
    line.transfer_ends("no-answer")
    assert Conversation.objects.get().taken_over_at is None, "the assistant has it again"


def test_staff_transfer_the_call_to_any_number(line, shop):
    conversation = Conversation.objects.get()
    staff = sign_in("agnes", shop, "agent")
    page = f"/admin/conversations/conversation/{conversation.pk}"
    assert "Transfer the call" in staff.get(f"{page}/change/").content.decode()
    wrong = staff.post(f"{page}/do/transfer-call/", {"number": "the boss"})
    assert (wrong.status_code, "country code" in wrong.json()["said"]) == (409, True)
    done = staff.post(f"{page}/do/transfer-call/", {"number": "+51 922 222 222"})
    assert done.status_code == 200, done.content
    line.waits()
    assert line.dialled["number"] == "51922222222"
    viewer = sign_in("vera", shop, "viewer").post(f"{page}/do/transfer-call/", {"number": ""})
    assert viewer.status_code == 403


def test_without_a_number_the_tool_is_not_offered_and_a_person_is_called(line, model, shop):
    Assistant.objects.filter(client=shop).update(transfer_number="", human_phrases="a human")
    says(line, "hello")
    offered = {tool["function"]["name"] for tool in model.requests[0].body["tools"]}
    assert "transfer_call" not in offered
    says(line, "Give me a human")
    assert line.dialled == {}
    assert Conversation.objects.get().taken_over_at


def test_a_chat_is_not_transferred(door, shop):
    conversation_id = door.says("hello")["conversation_id"]
    answer = sign_in("agnes", shop, "agent").post(
        f"/admin/conversations/conversation/{conversation_id}/do/transfer-call/", {"number": PERSON}
    )
    assert (answer.status_code, answer.json()["said"]) == (409, "Only a phone call can be transferred.")
