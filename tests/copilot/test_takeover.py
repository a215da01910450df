"""A colleague in a session of the copilot: its user sees it, and the model is silent, in mid-sentence too."""

from __future__ import annotations

import pytest
from django.utils import timezone

from conversations.models import Assistant, Chunk, Conversation, Turn
from conversations.services.core.ledger import Actor
from conversations.services.staff_actions import send
from conversations.services.transitions import takeover
from tests.copilot.reading import Browser, text_of, user
from tests.fakes.openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

GRACE = Actor("staff", "grace")


def take(session_id: str) -> None:
    takeover.take_over(session_id, actor=GRACE, now=timezone.now())


def test_a_reply_that_is_being_written_stops_at_once_and_is_not_kept(ann: Browser, model: FakeOpenAI) -> None:
    model.then("endless", text="la ", every=0.002)
    with ann.stream("POST", "/copilot", {"message": "Sing"}) as events:
        session_id = events.next("session").data["session_id"]
        events.next("delta")
        take(session_id)
        done = events.rest()[-1]
    assert (done.name, done.data["finish_reason"], done.data["message"]) == ("done", "taken_over", None)
    turn = Turn.objects.get()
    assert (turn.status, turn.code) == ("dropped", "taken_over")
    assert turn.draft.startswith("la la")
    assert not Chunk.objects.filter(role="ai").exists()


def test_the_model_is_silent_until_it_is_handed_back_and_knows_what_was_said(ann: Browser, model: FakeOpenAI) -> None:
    session_id = ann.ask("Hello")[0].data["session_id"]
    take(session_id)
    said = ann.ask("Is anybody there?", session_id=session_id)
    assert [(event.name, event.data.get("finish_reason")) for event in said] == [
        ("session", None),
        ("done", "taken_over"),
    ]
    send.send(session_id, "Grace here: it is 42.", actor=Actor("staff", "grace", user("grace").pk), now=timezone.now())
    page = ann.get(f"/copilot?session_id={session_id}")
    assert page["session"]["taken_over"] is True
    assert [each["role"] for each in page["items"]] == ["user", "ai", "user", "ai"]
    assert [each["by_colleague"] for each in page["items"]] == [False, False, False, True]
    assert ann.call("POST", f"/copilot/sessions/{session_id}/retry")[1]["code"] == "nothing_to_retry"
    assert len(model.requests) == 1

    takeover.hand_back(session_id, actor=GRACE, now=timezone.now())
    assert ann.get(f"/copilot?session_id={session_id}")["session"]["taken_over"] is False
    assert ann.ask("Thanks", session_id=session_id)[-1].name == "done"
    heard = [message["content"] for message in model.requests[-1].body["messages"]]
    assert "Grace here: it is 42." in "\n".join(heard)


def test_who_says_a_phrase_for_a_person_is_told_and_no_model_is_asked(ann: Browser, model: FakeOpenAI) -> None:
    Assistant.objects.update(human_phrases="a human")
    events = ann.ask("I want a human")
    assert (events[-1].name, events[-1].data["finish_reason"]) == ("done", "taken_over")
    page = ann.get(f"/copilot?session_id={events[0].data['session_id']}")
    assert [each["content"] for each in page["items"]] == ["I want a human", "A colleague will take it from here."]
    assert Conversation.objects.get().taken_over_at is not None
    assert model.requests == []
    assert text_of(events) == ""
