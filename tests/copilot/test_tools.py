"""What the model does beside speaking, where its reply is read while it is written."""

from __future__ import annotations

import json
import threading
from typing import Any
from uuid import UUID

import pytest

from conversations.models import Conversation, ConversationEvent, Step, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.transitions import steps
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]


@pytest.fixture
def step(ann: Browser) -> Step:
    """A step of Ann's session."""
    _, envelope = ann.call("POST", "/copilot/sessions", {})
    return steps.add_step(UUID(envelope["data"]["id"]), "Ask the number", SYSTEM)


def ask(ann: Browser, step: Step, message: str = "It is 4711") -> Any:
    return ann.ask(message, session_id=str(step.conversation_id))


def test_the_model_speaks_and_moves_steps_in_one_answer(ann: Browser, model: FakeOpenAI, step: Step) -> None:
    calls = [("complete_step", {"step_id": step.pk}), ("add_step", {"description": "Call the depot"})]
    model.then("reply", text="I'll look for it.", tool_calls=calls)
    events = ask(ann, step)
    assert (events[-1].name, text_of(events)) == ("done", "I'll look for it.")
    assert list(Step.objects.order_by("pk").values_list("description", "status")) == [
        ("Ask the number", "complete"),
        ("Call the depot", "pending"),
    ]
    done = ConversationEvent.objects.filter(actor="assistant", actor_name="field").order_by("id")
    assert list(done.values_list("kind", flat=True)) == ["step_complete", "step_added"]
    assert [call["name"] for call in Turn.objects.get().tool_calls] == ["complete_step", "add_step"]
    assert len(model.requests) == 1


def test_a_model_that_first_calls_and_then_speaks_is_read_word_by_word(
    ann: Browser, model: FakeOpenAI, step: Step
) -> None:
    last_word = threading.Event()
    model.then(
        "reply", tool_calls=[("complete_step", {"step_id": step.pk}), ("set_current_goal", {"description": "x"})]
    )
    model.then("reply", text="It is noted.", every=0.02, hold=last_word)
    body = {"message": "4711", "session_id": str(step.conversation_id)}
    with ann.stream("POST", "/copilot", body) as events:
        events.next("session")
        first = events.next("delta")
        assert Step.objects.get().status == "pending", "nothing is done before the reply is whole"
        last_word.set()
        rest = events.rest()
    assert text_of([first, *rest]) == "It is noted."
    assert Step.objects.get().status == "complete"
    assert Conversation.objects.get().current_goal == {"description": "x"}
    roles = [message["role"] for message in model.requests[-1].body["messages"]]
    assert roles[-3:] == ["assistant", "tool", "tool"]
    turn = Turn.objects.get()
    assert turn.tokens_out == len("It is noted.") // 4
    assert turn.tokens_in > 0


def test_what_was_said_with_a_wrong_call_stays_and_the_model_may_try_again(
    ann: Browser, model: FakeOpenAI, step: Step
) -> None:
    model.then("reply", text="Noted.", tool_calls=[("complete_step", {"step_id": 99}), ("set_topic", {"topic": "x"})])
    model.then("reply", tool_calls=[("complete_step", {"step_id": step.pk})], text="Now it is.")
    events = ask(ann, step)
    assert text_of(events) == events[-1].data["message"]["content"] == "Noted.\n\nNow it is."
    answers = [each["content"] for each in model.requests[-1].body["messages"] if each["role"] == "tool"]
    assert answers[0] == f"step_id must be the number of a pending step. Pending: {step.pk}."
    assert answers[1].startswith("There is no such tool"), "the title is the user's own"
    assert Step.objects.get().status == "complete"


def test_a_model_that_only_calls_is_made_to_speak(ann: Browser, model: FakeOpenAI, step: Step) -> None:
    model.then("reply", times=5, tool_calls=[("add_step", {"description": "x"})])
    model.then("reply", text="At last.")
    assert text_of(ask(ann, step)) == "At last."
    assert [request.body["tool_choice"] for request in model.requests] == [*["auto"] * 5, "none"]
    assert Step.objects.count() == 6


def test_nothing_is_done_with_a_reply_that_was_stopped_or_broke_off(
    ann: Browser, model: FakeOpenAI, step: Step
) -> None:
    model.then("reply", text="Noted.", tool_calls=[("complete_step", {"step_id": 99})])
    model.then("cut", text="One two three four")
    assert ask(ann, step)[-1].name == "error"
    model.then("endless", text="la ", every=0.002)
    with ann.stream("POST", "/copilot", {"message": "Sing", "session_id": str(step.conversation_id)}) as events:
        events.next("session")
        events.next("delta")
        ann.call("POST", f"/copilot/sessions/{step.conversation_id}/stop")
        assert events.rest()[-1].data["finish_reason"] == "stopped"
    assert Step.objects.get().status == "pending"


def test_a_model_that_asks_for_a_person_is_silent_from_then_on(ann: Browser, model: FakeOpenAI, step: Step) -> None:
    model.then("reply", text="I'll get a colleague.", tool_calls=[("ask_for_human", {"reason": "a refund"})])
    done = ask(ann, step)[-1]
    assert (done.name, done.data["finish_reason"]) == ("done", "taken_over")
    assert done.data["message"]["partial"] is False
    conversation = Conversation.objects.get()
    assert conversation.taken_over_at is not None
    assert conversation.needs_staff_reason == "a refund"
    assert [event.data.get("finish_reason") for event in ask(ann, step, "Hello?")] == [None, "taken_over"]
    assert len(model.requests) == 1


def test_an_assistant_without_tools_sends_none(ann: Browser, model: FakeOpenAI, step: Step) -> None:
    Conversation.objects.get().assistant.__class__.objects.update(uses_tools=False)
    ask(ann, step)
    assert "tools" not in model.requests[0].body


def event(delta: Any, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


@pytest.mark.parametrize(
    "pieces",
    [
        None,
        "x",
        [None, 5, "x", []],
        [{"index": "0"}, {"index": True}, {"index": -7}, {"index": 10**12, "id": "a", "function": {"name": "n"}}],
        [{"index": 0, "id": 7, "function": {"name": ["x"], "arguments": {}}}],
        [{"index": 0, "id": "c", "function": {"name": "add_step", "arguments": "[" * 5000}}],
        [{"index": number, "id": "c", "function": {"name": "\u0000", "arguments": "\ud800"}} for number in range(300)],
        [{"index": 0, "id": "c", "function": {"name": "add_step", "arguments": "x" * 300_000}}],
    ],
    ids=range(8),
)
def test_calls_that_make_no_sense_cost_the_reply_nothing(
    ann: Browser, model: FakeOpenAI, step: Step, pieces: Any
) -> None:
    body = event({"content": "Hello."}) + event({"tool_calls": pieces}) + event({}, "tool_calls") + "data: [DONE]\n\n"
    model.then("raw", body=body, content_type="text/event-stream")
    model.then("raw", body=event({"content": "There."}) + event({}, "stop"), content_type="text/event-stream")
    events = ask(ann, step)
    assert events[-1].name == "done", events[-1]
    assert text_of(events).startswith("Hello.")
    assert Step.objects.count() == 1


def test_a_server_that_numbers_no_calls_is_understood(ann: Browser, model: FakeOpenAI, step: Step) -> None:
    pieces = [
        {"id": "a", "function": {"name": "add_step", "arguments": '{"descrip'}},
        {"function": {"arguments": 'tion": "One"}'}},
        {"id": "b", "function": {"name": "add_step", "arguments": '{"description": "Two"}'}},
    ]
    body = event({"content": "Hello."}) + event({"tool_calls": pieces}) + event({}, "stop") + "data: [DONE]\n\n"
    model.then("raw", body=body, content_type="text/event-stream")
    ask(ann, step)
    assert list(Step.objects.order_by("pk").values_list("description", flat=True)) == ["Ask the number", "One", "Two"]
