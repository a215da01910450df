"""The assistant understands that a person wants no more messages, and opts them out by a tool."""

from __future__ import annotations

from functools import partial

import pytest
from django.utils import timezone

from conversations.engines.contract import Reply, ToolAction
from conversations.models import Assistant, Chunk, Contact, Conversation, ConversationEvent, Message
from conversations.services.replies import leases, pipeline
from tests.conftest import reply_to_all, send_all
from tests.fakes.openai import FakeOpenAI
from tests.races.threads import together

pytestmark = pytest.mark.django_db
GOODBYE = "You will get no more messages from us."
CALL = ("stop_messages", {"reason": "I have moved away, leave me alone from now on"})


@pytest.fixture
def model(shop, settings):
    """A model that opts the person out."""
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


def offered(model) -> set[str]:
    return {tool["function"]["name"] for tool in model.requests[-1].body["tools"]}


@pytest.mark.parametrize("channel", ["sms", "whatsapp", "messenger"])
def test_the_person_gets_the_confirmation_and_nothing_after_it(door, model, channel):
    model.then("reply", text=GOODBYE, tool_calls=[CALL])
    conversation_id = door.says("I have moved away, leave me alone from now on", channel=channel)["conversation_id"]
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "An offer"})
    door.says("did you hear me?", channel=channel)
    assert reply_to_all() == 1
    assert send_all() == 1, "the confirmation; the offer was cancelled"
    said = Message.objects.order_by("created_at").values_list("text", "status", "code")
    assert list(said) == [("An offer", "cancelled", "opted_out"), (GOODBYE, "delivered", "")]
    contact = Contact.objects.get()
    assert contact.opted_out[channel]["word"] == CALL[1]["reason"]
    event = ConversationEvent.objects.get(kind="opted_out")
    assert (event.actor, event.actor_name, event.cause) == ("assistant", "ada", CALL[1]["reason"])
    status, envelope = door.call("POST", f"/conversations/{conversation_id}/send", {"content": "But…"})
    assert (status, envelope["code"]) == (409, "opted_out")
    door.says("ok", channel=channel)
    assert reply_to_all() == 0
    door.says("START", channel=channel)
    assert Contact.objects.get().opted_out == {}


@pytest.mark.parametrize("channel", ["orb", "voice"])
def test_where_nobody_can_opt_out_the_tool_is_not_offered(door, model, channel):
    model.then("reply", text="Hello!")
    door.says("hello", channel=channel, **({"thread": "c1"} if channel == "voice" else {}))
    reply_to_all()
    assert "stop_messages" not in offered(model)
    assert "offer_choices" in offered(model)


def test_a_draft_that_is_overtaken_opts_nobody_out(door):
    door.says("leave me alone")
    [claim] = leases.claim(timezone.now(), 10)
    assert pipeline.prepare(claim)
    door.says("no, wait, I meant the other shop")
    reply = Reply(GOODBYE, "offline", tool_actions=(ToolAction("stop_messages", {"reason": "alone"}),))
    assert pipeline.commit(claim, reply, timezone.now()) == "overtaken"
    assert Contact.objects.get().opted_out == {}
    assert Conversation.objects.get().reply_owed


@pytest.mark.django_db(transaction=True)
def test_the_assistant_and_the_person_s_own_stop_at_the_same_instant(door):
    door.says("leave me alone")
    [claim] = leases.claim(timezone.now(), 10)
    assert pipeline.prepare(claim)
    reply = Reply(GOODBYE, "offline", tool_actions=(ToolAction("stop_messages", {"reason": "alone"}),))
    together(partial(pipeline.commit, claim, reply, timezone.now()), partial(door.says, "STOP"))
    assert "sms" in Contact.objects.get().opted_out
    assert ConversationEvent.objects.filter(kind="opted_out").count() == 1
    assert not Conversation.objects.get().reply_owed
    assert Chunk.objects.filter(role="user").count() == 2
