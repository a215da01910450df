"""Choices that a reply offers: as each channel shows them, and the answer comes back as the choice."""

from __future__ import annotations

import json

import pytest
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from conversations.models import Assistant, Chunk, Conversation, Message, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.transitions import takeover
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import post
from tests.fakes.messenger import PERSON
from tests.fakes.openai import FakeOpenAI
from tests.prompts import heard

pytestmark = pytest.mark.django_db
QUESTION = "Which size?"
SIZES = {"options": [{"title": "Small"}, {"title": "Large"}], "label": "Sizes"}
NUMBERED = "Which size?\n\n1. Small\n2. Large"

account, page = meta_doors.account, meta_doors.page


@pytest.fixture
def model(shop, settings):
    """A model that offers two sizes, and then says thanks."""
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.then("reply", text=QUESTION, tool_calls=[("offer_choices", SIZES)])
        fake.then("reply", text="Thanks!")
        yield fake


def replies() -> None:
    assert reply_to_all() == 1
    assert send_all() == 1


def last_prompt() -> list[dict[str, str]]:
    turn = Turn.objects.order_by("started_at").last()
    assert turn is not None
    return turn.prompt["messages"]


def test_on_whatsapp_the_model_s_choices_are_buttons_and_the_press_is_the_choice(meta, account, shop, model):
    post(meta.text_webhook("a pizza please"), "whatsapp")
    replies()
    [sent] = meta.sent
    assert sent.content["type"] == "interactive"
    assert sent.content["interactive"] == {
        "type": "button",
        "body": {"text": QUESTION},
        "action": {"buttons": [{"type": "reply", "reply": {"id": size, "title": size}} for size in ("Small", "Large")]},
    }
    offered = Chunk.objects.get(role="ai")
    assert (offered.content, offered.metadata["choices"]["options"][1]) == (QUESTION, {"id": "Large", "title": "Large"})
    html = sign_in("agnes", shop, "agent").get(f"/admin/conversations/conversation/{offered.conversation_id}/change/")
    assert '<li dir="auto">Large</li>' in html.content.decode()

    press = whatsapp.button_reply("Large", "Large", context={"from": "15550001111", "id": sent.wamid})
    post(meta.webhook(messages=[press]), "whatsapp")
    chunk = Chunk.objects.filter(role="user").last()
    assert (chunk.content, chunk.metadata["payload"]) == ("Large", "Large")
    replies()
    assert "offered the choices “Small”, “Large”" in json.dumps(last_prompt(), ensure_ascii=False)
    assert heard(last_prompt())[-1].endswith("Large")


def test_many_choices_are_a_list_on_whatsapp(meta, account, shop, door):
    post(meta.text_webhook("hello"), "whatsapp")
    conversation = Conversation.objects.get()
    options = [{"title": f"Pizza {n}", "id": f"p{n}", "description": "with cheese"} for n in range(10)]
    body = {"role": "ai", "content": "Which one?", "choices": options, "choices_label": "Menu"}
    status, envelope = door.call("POST", f"/conversations/{conversation.pk}/send", body)
    assert (status, len(envelope["data"]["messages"])) == (201, 1)
    send_all()
    interactive = meta.sent[0].content["interactive"]
    assert (interactive["type"], interactive["action"]["button"]) == ("list", "Menu")
    assert interactive["action"]["sections"] == [{"rows": options}]
    press = whatsapp.list_reply("Pizza 3", "p3", "with cheese")
    post(meta.webhook(messages=[press]), "whatsapp")
    assert Chunk.objects.filter(role="user").last().metadata["payload"] == "p3"


def test_a_long_text_keeps_its_choices_below_its_last_part(meta, account, door):
    post(meta.text_webhook("hello"), "whatsapp")
    body = {"content": "A sentence that goes on and on. " * 60, "choices": ["Yes", "No"]}
    status, _ = door.call("POST", f"/conversations/{Conversation.objects.get().pk}/send", body)
    assert status == 201
    assert send_all() == 2
    assert [sent.content["type"] for sent in meta.sent] == ["text", "interactive"]
    assert len(meta.sent[1].text) <= 1024


def test_on_messenger_the_choices_are_quick_replies(page, shop, model):
    post(page.text_webhook("a pizza please"), "messenger")
    replies()
    assert page.sent[0].choices == (("Small", "Small"), ("Large", "Large"))
    post(page.webhook(composed.quick_reply(page.page, PERSON, "Large", "Large")), "messenger")
    chunk = Chunk.objects.filter(role="user").last()
    assert (chunk.content, chunk.metadata["payload"]) == ("Large", "Large")


@pytest.mark.parametrize("channel", ["sms", "orb"])
def test_elsewhere_the_choices_are_numbered_and_a_number_is_the_choice(door, model, channel):
    conversation_id = door.says("a pizza please", channel=channel)["conversation_id"]
    replies()
    assert Message.objects.get().text == NUMBERED
    door.says("2", channel=channel)
    chunk = Chunk.objects.filter(role="user").last()
    assert chunk.content == "2"
    assert chunk.metadata == {"choice": 2, "payload": "Large", "title": "Large"}
    replies()
    assert "this chooses “Large”" in heard(last_prompt())[-1]
    assert door.get(f"/conversations/{conversation_id}")["chunks"][-2]["metadata"]["payload"] == "Large"


def test_a_number_chooses_only_what_the_newest_message_offers(door, model):
    door.says("a pizza please")
    replies()
    door.says("7")
    replies()
    door.says("2")
    assert [chunk.metadata for chunk in Chunk.objects.filter(role="user")] == [{}, {}, {}]


def test_choices_that_fit_no_form_are_numbered(meta, account, door):
    post(meta.text_webhook("hello"), "whatsapp")
    long = "The very large pizza with everything on it"
    body = {"content": QUESTION, "choices": [long, "Small"]}
    status, envelope = door.call("POST", f"/conversations/{Conversation.objects.get().pk}/send", body)
    assert status == 201, envelope
    send_all()
    assert meta.sent[0].text == f"{QUESTION}\n\n1. {long}\n2. Small"


@pytest.mark.parametrize(
    "wrong",
    [[], "Small", ["a"] * 11, ["a", "a"], [{"title": ""}], [{"id": "x"}], [7], [{"title": "a", "url": "b"}]],
)
def test_wrong_choices_are_refused_and_nothing_is_sent(door, wrong):
    conversation_id = door.says("hello")["conversation_id"]
    body = {"content": QUESTION, "choices": wrong}
    status, envelope = door.call("POST", f"/conversations/{conversation_id}/send", body)
    assert status == 400
    assert "choices" in envelope["details"]
    assert not Message.objects.exists()


@pytest.fixture
def agent(shop):
    return sign_in("grace", shop, "agent")


def offers(agent, conversation, **posted):
    return agent.post(f"/admin/conversations/conversation/{conversation.pk}/do/reply/", posted)


def test_staff_offer_choices_from_the_transcript(meta, account, agent):
    post(meta.text_webhook("When do you open?"), "whatsapp")
    conversation = Conversation.objects.get()
    page = agent.get(f"/admin/conversations/conversation/{conversation.pk}/change/").content.decode()
    assert "Choices, one in each line" in page
    answer = offers(agent, conversation, text="Which shop?", choices="Lima\r\n\r\n Cusco \r\n")
    assert answer.status_code == 200, answer.content
    send_all()
    [sent] = meta.sent
    assert [each["reply"]["title"] for each in sent.content["interactive"]["action"]["buttons"]] == ["Lima", "Cusco"]
    chunk = conversation.chunks.latest("position")
    assert [each["title"] for each in chunk.metadata["choices"]["options"]] == ["Lima", "Cusco"]
    page = agent.get(f"/admin/conversations/conversation/{conversation.pk}/change/").content.decode()
    assert '<li dir="auto">Cusco</li>' in page


def test_on_sms_the_choices_of_staff_are_numbered_and_the_next_prompt_has_them(door, agent, model):
    door.says("When do you open?", phone="+51999999999")
    conversation = Conversation.objects.get()
    offers(agent, conversation, text="Which shop?", choices="Lima\nCusco")
    assert Message.objects.get().text == "Which shop?\n\n1. Lima\n2. Cusco"
    door.says("2")
    takeover.hand_back(conversation.pk, actor=SYSTEM, now=timezone.now())
    Conversation.objects.update(reply_due_at=timezone.now())
    reply_to_all()
    told = json.dumps(last_prompt(), ensure_ascii=False)
    assert "offered the choices “Lima”, “Cusco”" in told
    assert "this chooses “Cusco”" in told


@pytest.mark.parametrize(
    ("posted", "said"),
    [
        ({"text": "", "choices": "Lima"}, "Write something first."),
        ({"text": "Which?", "choices": "Lima\nlima"}, "Each choice needs a title of its own."),
        ({"text": "Which?", "choices": "\n".join("abcdefghijk")}, "choices must be a list of 1 to 10."),
        ({"text": "Which?", "choices": "x" * 73}, "title must have at most 72 characters."),
    ],
)
def test_choices_of_staff_that_cannot_be_offered_are_refused_with_a_sentence(door, agent, posted, said):
    door.says("Hello")
    answer = offers(agent, Conversation.objects.get(), **posted)
    assert (answer.status_code, answer.json()["said"]) == (409, said)
    assert not Message.objects.exists()


def test_a_wrong_call_is_answered_to_the_model(door, shop, settings):
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.then("reply", text=QUESTION, tool_calls=[("offer_choices", {"options": []})])
        fake.then("reply", text="Small or large?")
        door.says("a pizza please")
        reply_to_all()
        answers = [each["content"] for each in fake.requests[1].body["messages"] if each["role"] == "tool"]
    assert answers == ["options must be a list of 1 to 10."]
    assert Chunk.objects.get(role="ai").metadata == {}
