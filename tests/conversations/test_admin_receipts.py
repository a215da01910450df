"""What a model was given, as the back office shows it to those who may see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from conversations.engines.registry import ask
from conversations.models import Assistant, Chunk, Conversation, Membership, Message, StaffAction, Turn
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import corrections, seed_helpers, send
from memory.context import DELIVERY_RULE, STAFF_RULE
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import sign_in
from tests.fakes.openai import FakeOpenAI


@pytest.fixture
def fake(settings: Any, shop: Any) -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        settings.OPENAI_BASE_URL = server.base_url
        Assistant.objects.filter(client=shop).update(engine="openai", model="gpt-4o-mini")
        server.reply = lambda messages: "It left today."
        yield server


@pytest.fixture
def answered(door: Door, fake: FakeOpenAI) -> Conversation:
    """Ann asked, the first try failed, the second was answered."""
    door.says("Where is my <parcel>?", phone="+51999999999", name="Ann")
    fake.then("status", status=503)
    reply_to_all()
    Conversation.objects.update(reply_due_at=timezone.now())
    reply_to_all()
    return Conversation.objects.get()


def receipt(conversation: Conversation) -> str:
    chunk = Chunk.objects.get(conversation=conversation, role="ai")
    return reverse("admin:conversations_conversation_receipt", args=[conversation.pk, chunk.position])


def test_it_shows_the_request_part_by_part(manager: HttpClient, answered: Conversation, fake: FakeOpenAI) -> None:
    answer = manager.get(receipt(answered))
    [sent] = [each.body["messages"] for each in fake.requests][-1:]
    shown = answer.context["parts"]
    for part in shown:
        in_its_role = [message["content"] for message in sent if message["role"] == part.role]
        assert [content for content in in_its_role if part.text in content], part
    assert [part.text for part in shown if part.name == "entry"] == ["Where is my <parcel>?"]
    page = answer.content.decode()
    assert "Where is my &lt;parcel&gt;?" in page
    assert "failed: http_503" in page
    assert "gpt-4o-mini" in page
    assert f"{Turn.objects.get(status='committed').tokens_in}" in page
    assert "no-store" in answer["Cache-Control"]
    assert (
        receipt(answered)
        in manager.get(reverse("admin:conversations_conversation_change", args=[answered.pk])).content.decode()
    )


def test_it_takes_a_right_of_its_own(
    shop: Any, neighbour: Any, agent: HttpClient, viewer: HttpClient, answered: Conversation
) -> None:
    assert agent.get(receipt(answered)).status_code == 404
    transcript = reverse("admin:conversations_conversation_change", args=[answered.pk])
    assert receipt(answered) not in agent.get(transcript).content.decode()
    Membership.objects.filter(user__username="vera").update(sees_receipts=True)
    assert viewer.get(receipt(answered)).status_code == 200
    assert sign_in("nora", neighbour, "manager").get(receipt(answered)).status_code == 404
    turn = reverse("admin:conversations_turn_change", args=[Turn.objects.first().pk])
    assert "You are Ada" not in agent.get(turn).content.decode()


def test_it_is_run_again_with_another_model_and_prompt_and_nothing_is_sent(
    manager: HttpClient, answered: Conversation, fake: FakeOpenAI
) -> None:
    Assistant.objects.update(system_prompt="You are Bea, and brief.")
    before = (Message.objects.count(), Chunk.objects.count(), Turn.objects.count())
    fake.reply = lambda messages: f"As {messages[0]['content'][:11]}."
    then = manager.post(receipt(answered), {"prompt": "then", "model": "gpt-4.1"})
    assert then.context["again"]["text"] == "As You are Ada."
    assert fake.requests[-1].body["model"] == "gpt-4.1"
    now = manager.post(receipt(answered), {"prompt": "now", "model": ""})
    assert now.context["again"]["text"] == "As You are Bea."
    assert fake.requests[-1].body["messages"][1:] == fake.requests[-2].body["messages"][1:]
    assert fake.requests[-1].body["model"] == "gpt-4o-mini"
    fake.then("status", status=401)
    assert "gave no reply" in manager.post(receipt(answered), {"prompt": "then"}).content.decode()
    assert (Message.objects.count(), Chunk.objects.count(), Turn.objects.count()) == before
    assert StaffAction.objects.filter(verb__startswith="ran again").count() == 3


def test_it_shows_who_wrote_and_keeps_the_rules_of_marks_with_another_prompt(
    manager: HttpClient, answered: Conversation, door: Door, fake: FakeOpenAI
) -> None:
    mona = get_user_model().objects.get(username="mona")
    get_user_model().objects.filter(pk=mona.pk).update(first_name="Mona", last_name="<Lisa>")
    send.send(answered.pk, "It left yesterday.", actor=Actor("staff", "mona", mona.pk), now=timezone.now())
    Message.objects.filter(chunk__author=mona).update(status="failed")
    door.says("Really?")
    reply_to_all()
    turn = Turn.objects.filter(status="committed").latest("started_at")
    page = manager.get(attempt(turn))
    marked = "[Written by a human colleague, Mona <Lisa>] [Not delivered: it could not be sent]"
    assert [part.mark for part in page.context["parts"] if part.text == "It left yesterday."] == [marked]
    assert marked.replace("<Lisa>", "&lt;Lisa&gt;") in page.content.decode()

    Assistant.objects.update(system_prompt="You are Bea, and brief.")
    manager.post(attempt(turn), {"prompt": "now", "model": ""})
    system = fake.requests[-1].body["messages"][0]["content"]
    assert system.startswith("You are Bea, and brief.\n")
    assert STAFF_RULE in system
    assert DELIVERY_RULE in system
    Turn.objects.filter(pk=turn.pk).update(prompt=of_before(turn.prompt))
    manager.post(attempt(turn), {"prompt": "now", "model": ""})
    assert fake.requests[-1].body["messages"][0]["content"] == f"You are Bea, and brief.\n\n{STAFF_RULE}"


def of_before(prompt: Any) -> Any:
    """Return a prompt as it was kept when its rule was the end of the assistant's part and no part had a mark."""
    system = f"You are Ada.\n\n{STAFF_RULE}"
    part = {"name": "system", "tokens": 9, "note": "", "message": 0, "start": 0, "end": len(system), "position": 0}
    return {**prompt, "messages": [{"role": "system", "content": system}, *prompt["messages"][1:]], "parts": [part]}


def attempt(turn: Turn) -> str:
    return reverse("admin:conversations_conversation_turn", args=[turn.conversation_id, turn.pk])


def test_a_draft_that_nobody_heard_has_one_too(
    manager: HttpClient, agent: HttpClient, door: Door, fake: FakeOpenAI
) -> None:
    door.says("Where is it?")
    [claim] = leases.claim(timezone.now(), 1)
    request, engine = pipeline.prepare(claim) or pytest.fail("nothing was prepared")
    door.says("Never mind")
    fake.reply = lambda messages: "It <left>."
    pipeline.commit(claim, ask(engine, request), timezone.now())  # type: ignore[arg-type]
    turn = Turn.objects.get(status="overtaken")
    page = manager.get(attempt(turn)).content.decode()
    assert "This reply was not sent. Overtaken" in page
    assert "It &lt;left&gt;." in page
    assert "Where is it?" in page
    transcript = reverse("admin:conversations_conversation_change", args=[turn.conversation_id])
    assert attempt(turn) in manager.get(transcript).content.decode()
    assert attempt(turn) not in agent.get(transcript).content.decode()
    assert agent.get(attempt(turn)).status_code == 404
    other = Conversation.objects.create(
        client_id=turn.conversation.client_id, contact_id=turn.conversation.contact_id, channel="whatsapp"
    )
    assert manager.get(attempt(turn).replace(str(turn.conversation_id), str(other.pk))).status_code == 404
    corrections.redact(turn.conversation_id, 3, actor=SYSTEM, now=timezone.now())
    assert "Where is it?" not in manager.get(attempt(turn)).content.decode()


def test_what_the_model_did_with_tools_is_shown_and_run_again_it_has_them_and_does_nothing(
    manager: HttpClient, door: Door, fake: FakeOpenAI
) -> None:
    Assistant.objects.update(uses_tools=True, temperature=0.2)
    pk = door.says("Where is it?")["conversation_id"]
    step = seed_helpers.add_step(pk, "Ask the number")
    fake.then("reply", text="Which number?", tool_calls=[("set_topic", {"topic": "A parcel"})])
    reply_to_all()
    conversation = Conversation.objects.get()
    page = manager.get(receipt(conversation)).content.decode()
    assert "set_topic" in page
    assert "A parcel" in page
    assert "0.2" in page
    fake.then("reply", text="Done.", tool_calls=[("complete_step", {"step_id": step.pk})])
    answer = manager.post(receipt(conversation), {"prompt": "then"})
    assert fake.requests[-1].body["tools"] == fake.requests[0].body["tools"]
    [call] = answer.context["again"]["calls"]
    assert call["name"] == "complete_step"
    assert "no such" not in call["answer"].lower()
    assert conversation.steps.get().status == "pending"


def test_what_retell_was_told_cannot_be_run_again_here(manager: HttpClient, answered: Conversation) -> None:
    Turn.objects.filter(status="committed").update(engine="retell")
    page = manager.get(receipt(answered)).content.decode()
    assert "Retell keeps the conversation" in page
    assert "Run it again" not in page
    assert "cannot be run again here" in manager.post(receipt(answered), {"prompt": "then"}).content.decode()


def test_a_redaction_reaches_it(manager: HttpClient, answered: Conversation) -> None:
    corrections.redact(answered.pk, 3, actor=SYSTEM, now=timezone.now())
    page = manager.get(receipt(answered)).content.decode()
    assert "parcel" not in page
    assert "[redacted]" in page


def test_the_form_opens_a_session_of_the_own_client(agent: HttpClient, shop: Any, neighbour: Any) -> None:
    address = "/admin/conversations/conversation/new/"
    form = {"client": str(shop.pk), "channel": "whatsapp", "phone": "+51 999 888 777", "variables": "due_date = Friday"}
    assert agent.post(address, {**form, "client": str(neighbour.pk)}).status_code == 200
    assert "Write each line as name = value" in agent.post(address, {**form, "variables": "Friday"}).content.decode()
    assert "phone" in agent.post(address, {**form, "phone": "12"}).content.decode()
    assert not Conversation.objects.exists()
    assert agent.post(address, form).status_code == 302
    session = Conversation.objects.get()
    assert (session.client, session.variables, session.reply_owed) == (shop, {"due_date": "Friday"}, True)
    assert session.events.get(kind="opened").actor_name == "agnes"
    assert "already" in agent.post(address, form).content.decode()


def test_a_viewer_writes_to_nobody(viewer: HttpClient, shop: Any) -> None:
    assert viewer.get("/admin/conversations/conversation/new/").status_code == 403
