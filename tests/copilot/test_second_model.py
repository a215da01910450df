"""The second model of an assistant, where a reply is read while it is written."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from conversations.engines.contract import MOST_CALLS
from conversations.models import Assistant, Chunk, Client, ModelProvider, Turn
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

LONG = "One two three four five six seven eight nine ten."
REASONED = "They greet me, so I greet them.\n</think>\n\nHello Ann."
REFUSAL = {"choices": [{"delta": {"refusal": "I cannot help with that."}, "finish_reason": "stop"}]}


@pytest.fixture
def second(roofers: Client, model: FakeOpenAI) -> Iterator[FakeOpenAI]:
    """The second model, at a provider of its own."""
    with FakeOpenAI(api_key="sk-two") as fake:
        fake.reply = lambda _messages: "The second one answers."
        provider = ModelProvider.objects.create(
            client=roofers,
            name="two",
            kind="openai_compatible",
            base_url=fake.base_url,
            credentials={"api_key": "sk-two"},
        )
        Assistant.objects.filter(client=roofers).update(
            model="first", fallback_provider=provider, fallback_model="second"
        )
        yield fake


def nobody_listens(settings: Any) -> None:
    """Let the first model's server be down."""
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        settings.OPENAI_BASE_URL = f"http://127.0.0.1:{closed_soon.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429, "headers": {"Retry-After": "7200"}}),
        ("status", {"status": 401}),
        ("status", {"status": 400}),
        ("raw", {"body": json.dumps({"error": {"code": "server_error"}}), "content_type": "text/event-stream"}),
        ("error", {"after": 0}),
        ("cut", {"after": 0}),
        ("blank", {}),
    ],
    ids=lambda value: str(value.get("status", "")) if isinstance(value, dict) else value,
)
def test_where_the_first_model_fails_before_a_word_the_second_answers(
    ann: Browser, model: FakeOpenAI, second: FakeOpenAI, kind: str, options: dict[str, Any]
) -> None:
    model.then(kind, **options)
    events = ann.ask("Hello")
    assert (events[-1].name, text_of(events)) == ("done", "The second one answers.")
    turn = Turn.objects.get()
    assert (turn.status, turn.model, turn.attempt, turn.calls) == ("committed", "second", 1, 2)


def test_where_nobody_listens_the_second_answers(ann: Browser, second: FakeOpenAI, settings: Any) -> None:
    nobody_listens(settings)
    events = ann.ask("Hello")
    assert (events[-1].name, text_of(events)) == ("done", "The second one answers.")
    assert Turn.objects.get().model == "second"


def test_words_that_were_read_are_not_replaced(ann: Browser, model: FakeOpenAI, second: FakeOpenAI) -> None:
    model.then("cut", text=LONG, after=3)
    events = ann.ask("Count")
    assert (events[-1].name, events[-1].data["code"]) == ("error", "cut_off")
    assert text_of(events).strip() == "One two three"
    assert second.requests == []


def test_the_failure_told_is_that_of_the_model_that_was_read(ann: Browser, second: FakeOpenAI, settings: Any) -> None:
    nobody_listens(settings)
    second.then("cut", text=LONG, after=3)
    error = ann.ask("Count")[-1]
    assert (error.name, error.data["code"]) == ("error", "cut_off")
    assert error.data["message"]["content"] == "One two three"


@pytest.mark.parametrize("down", [False, True], ids=["the first model's", "the second model's"])
def test_reasoning_that_was_seen_is_not_kept_and_the_next_try_holds_it_back(
    ann: Browser, model: FakeOpenAI, second: FakeOpenAI, settings: Any, down: bool
) -> None:
    if down:
        nobody_listens(settings)
    for each in (model, second):
        each.then("reply", times=4, text=REASONED, every=0.01)
    events = ann.ask("Hello")
    assert (events[-1].name, text_of(events)) == ("done", "Hello Ann.")
    assert [chunk.content for chunk in Chunk.objects.filter(role="ai")] == ["Hello Ann."]
    turn = Turn.objects.get()
    assert (turn.draft, turn.attempt) == ("Hello Ann.", 2)


def test_a_refusal_is_read_where_the_model_refuses(ann: Browser, model: FakeOpenAI, second: FakeOpenAI) -> None:
    body = f"data: {json.dumps(REFUSAL)}\n\ndata: [DONE]\n\n"
    model.then("raw", body=body, content_type="text/event-stream")
    events = ann.ask("Hello")
    assert (events[-1].name, text_of(events)) == ("done", "I cannot help with that.")
    assert Turn.objects.get().finish_reason == "refused"


def test_a_model_that_only_calls_tools_costs_so_many_calls_for_a_message(
    ann: Browser, model: FakeOpenAI, second: FakeOpenAI
) -> None:
    """Attempts of one streamed turn together."""
    Assistant.objects.update(fallback_provider=None, fallback_model="")
    model.then("reply", times=50, tool_calls=[("set_current_goal", {"description": "x"})])
    assert ann.ask("Hello")[-1].name == "error"
    assert len(model.requests) == Turn.objects.get().calls == MOST_CALLS


def test_nobody_watches_an_empty_bubble_for_hours(ann: Browser, model: FakeOpenAI, second: FakeOpenAI) -> None:
    for each in (model, second):
        each.then("status", status=429, headers={"Retry-After": "7200"})
    error = ann.ask("Hello")[-1]
    assert (error.name, error.data["code"]) == ("error", "rate_limited")
    assert Turn.objects.get().attempt == 1
