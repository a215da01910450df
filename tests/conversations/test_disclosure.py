"""An assistant says that it is a machine before its first words in a conversation, and it can be proved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Assistant, Chunk, Conversation, ConversationEvent, Membership, Message
from conversations.services.copilot import sessions
from conversations.services.copilot.sessions import User
from conversations.services.core.ledger import SYSTEM
from conversations.services.export import transcripts
from conversations.services.tenants import setup
from conversations.services.transitions import takeover
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.test_plivo_calls import Phone
from tests.conversations.test_templates import too_late
from tests.fakes.plivo import FakePlivo

pytestmark = pytest.mark.django_db
MACHINE = "You are writing with an AI assistant of the shop."

account = meta_doors.account


@pytest.fixture(autouse=True)
def machine(shop) -> None:
    """The shop's assistant says what it is."""
    Assistant.objects.filter(client=shop).update(disclosure=MACHINE)


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("id").values_list("content", flat=True))


def exported_of(conversation_id: str) -> Any:
    """The transcript as JSON."""
    conversation = Conversation.objects.select_related("contact", "client", "assistant").get(pk=conversation_id)
    return json.loads(b"".join(transcripts.as_json(conversation)))


def test_it_is_said_once_with_the_first_words_and_the_export_proves_it(door):
    conversation_id = door.says("Hello")["conversation_id"]
    assert (reply_to_all(), send_all()) == (1, 1)
    first = Message.objects.get()
    assert first.text.startswith(f"{MACHINE}\n\n"), "in one message, so that it cannot be missing"
    door.says("And again")
    assert (reply_to_all(), send_all()) == (1, 1)
    assert [text.startswith(MACHINE) for text in said()] == [True, False]

    event = ConversationEvent.objects.get(kind="disclosed")
    chunk = Chunk.objects.filter(role="ai").earliest("id")
    assert (event.actor, event.actor_name, event.cause) == ("assistant", "ada", MACHINE)
    assert event.data == {"sentence": MACHINE, "chunk_id": chunk.pk, "position": chunk.position}
    exported = exported_of(conversation_id)
    [proof] = exported["disclosed"]
    assert (proof["sentence"], proof["position"]) == (MACHINE, chunk.position)
    [entry] = [each for each in exported["chunks"] if each["position"] == proof["position"]]
    assert (entry["content"].startswith(MACHINE), entry["delivery"]) == (True, ["delivered"])
    assert chunk.metadata["disclosure"] == MACHINE


def test_each_conversation_says_it_anew(door):
    first = door.says("Hello")["conversation_id"]
    reply_to_all()
    door.call("POST", f"/conversations/{first}/close", {})
    door.says("Hello again")
    reply_to_all()
    assert [text.startswith(MACHINE) for text in said()] == [True, True]


def test_what_never_arrived_is_said_again(door):
    door.says("Hello")
    reply_to_all()
    Message.objects.update(status="failed", code="131026")
    door.says("Are you there?")
    reply_to_all()
    assert [text.startswith(MACHINE) for text in said()] == [True, True]
    assert ConversationEvent.objects.filter(kind="disclosed").count() == 2


def test_staff_and_programs_say_no_such_thing(door):
    conversation_id = door.says("Hello")["conversation_id"]
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "This is Mona."})
    assert said() == ["This is Mona."]


def test_the_fallback_and_the_sentence_of_a_takeover_are_the_assistant_s_words_too(door, shop):
    Assistant.objects.filter(client=shop).update(engine="retell", retell_agent_id="agent_none")
    door.says("Hello")
    reply_to_all()
    assert said()[0].startswith(f"{MACHINE}\n\nSorry")
    other = door.says("A person, please", user_id="bob")["conversation_id"]
    takeover.take_over(other, tell=True, actor=SYSTEM, now=timezone.now())
    assert said()[-1] == f"{MACHINE}\n\nA colleague will take it from here."


def test_after_24_hours_it_is_in_the_template(meta, account, shop, door):
    wanted = {"template_name": "news", "template_language": "en", "template_variables": "{text}"}
    Assistant.objects.filter(client=shop).update(**wanted)
    meta_doors.post(meta.text_webhook("hello"), "whatsapp")
    reply_to_all()
    too_late()
    send_all()
    [parameter] = meta.sent[0].content["template"]["components"][0]["parameters"]
    assert parameter["text"].startswith(MACHINE)


def test_a_caller_hears_it_before_the_greeting(shop, settings):
    settings.PUBLIC_BASE_URL, settings.VOICE_REPLY_SECONDS = "https://convo.example", 0.0
    with FakePlivo() as plivo:
        number = {"address": "+1 415 555 0000", "credentials": plivo.credentials}
        setup.create_channel_account(shop, channel="voice", provider="plivo", **number)
        assert Phone(plivo).dials() == f"{MACHINE}\n\nHello, how can I help you?"
    assert ConversationEvent.objects.get(kind="disclosed").data["position"] == 3


def test_the_copilot_begins_with_it(shop, django_user_model):
    Assistant.objects.filter(client=shop).update(in_copilot=True)
    member = django_user_model.objects.create_user("ann")
    Membership.objects.create(user=member, client=shop, role="viewer")
    session = sessions.new_session(User(member.pk, "ann"), "ada", "", timezone.now())
    assert [chunk.content for chunk in Conversation.objects.get(pk=session.pk).chunks.filter(role="ai")] == [MACHINE]
