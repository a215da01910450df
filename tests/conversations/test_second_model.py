"""The second model of an assistant answers where the first does not, and all of them are asked only so often."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from django.utils import timezone

from conversations.engines.contract import MOST_CALLS
from conversations.models import Assistant, Chunk, Client, Conversation, ModelProvider, Turn
from tests.conftest import Door, reply_to_all
from tests.fakes.openai import FakeOpenAI

pytestmark = pytest.mark.django_db

HOURS = {"Retry-After": "7200"}
REFUSAL = {"choices": [{"message": {"content": None, "refusal": "I cannot help with that."}, "finish_reason": "stop"}]}


def provider(shop: Client, name: str, base_url: str) -> ModelProvider:
    return ModelProvider.objects.create(
        client=shop, name=name, kind="openai_compatible", base_url=base_url, credentials={"api_key": f"sk-{name}"}
    )


@pytest.fixture
def models(shop: Client) -> Any:
    """The shop's two models, at two providers."""
    with FakeOpenAI(api_key="sk-one") as one, FakeOpenAI(api_key="sk-two") as two:
        two.reply = lambda _messages: "The second one answers."
        Assistant.objects.filter(client=shop).update(
            engine="openai",
            model_provider=provider(shop, "one", one.base_url),
            model="first",
            fallback_provider=provider(shop, "two", two.base_url),
            fallback_model="second",
        )
        yield one, two


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("position").values_list("content", flat=True))


def reply_until_given_up() -> None:
    """Do what the dispatcher does until nothing is owed, without its pauses."""
    for _ in range(20):
        Conversation.objects.update(reply_due_at=timezone.now())
        if not reply_to_all():
            return
    raise AssertionError("It has no end.")


# --- the second answers ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 429, "headers": HOURS}),
        ("status", {"status": 401}),
        ("status", {"status": 400}),
        ("status", {"status": 404, "code": "model_not_found"}),
        ("status", {"status": 400, "code": "content_filter"}),
        ("status", {"status": 429, "code": "insufficient_quota"}),
        ("raw", {"body": json.dumps(REFUSAL)}),
        ("nonsense", {}),
        ("blank", {}),
        ("reset", {}),
    ],
    ids=lambda value: str(value.get("code") or value.get("status") or "") if isinstance(value, dict) else value,
)
def test_where_the_first_model_fails_the_second_answers_at_once(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI], kind: str, options: dict[str, Any]
) -> None:
    one, two = models
    one.then(kind, **options)
    door.says("Hello")
    assert reply_to_all() == 1
    assert said() == ["The second one answers."]
    turn = Turn.objects.get()
    assert (turn.status, turn.model, turn.calls, turn.finish_reason) == ("committed", "second", 2, "stop")
    assert [each.body["model"] for each in [*one.requests, *two.requests]] == ["first", "second"]
    assert Conversation.objects.get().needs_staff_since is None


def test_where_nobody_listens_the_second_answers(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    ModelProvider.objects.filter(name="one").update(base_url=f"http://127.0.0.1:{port}/v1")
    door.says("Hello")
    assert reply_to_all() == 1
    assert said() == ["The second one answers."]
    assert Turn.objects.get().model == "second"


def test_a_refused_key_is_shown_at_the_provider_though_somebody_answered(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI]
) -> None:
    models[0].api_key = "sk-another"
    door.says("Hello")
    reply_to_all()
    assert said() == ["The second one answers."]
    health = dict(ModelProvider.objects.values_list("name", "health"))
    assert health == {"one": "broken", "two": "ok"}


def test_the_second_is_not_asked_where_the_first_answers(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    door.says("Hello")
    reply_to_all()
    assert said() == ["You said: Hello"]
    assert models[1].requests == []
    assert Turn.objects.get().model == "first"


def test_the_second_begins_from_the_prompt_and_does_nothing_twice(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI]
) -> None:
    """Calls of the first before it failed are not done."""
    one, two = models
    one.then("reply", tool_calls=[("add_step", {"description": "By the first"})])
    one.then("status", status=500)
    two.then("reply", text="Noted.", tool_calls=[("add_step", {"description": "By the second"})])
    conversation_id = door.says("Hello")["conversation_id"]
    reply_to_all()
    shown = door.get(f"/conversations/{conversation_id}")
    assert [step["description"] for step in shown["steps"]] == ["By the second"]
    assert [message["role"] for message in two.requests[0].body["messages"]] == ["system", "user"]
    assert Turn.objects.get().calls == 3


def test_a_refusal_is_said_where_both_refuse(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    for model in models:
        model.then("raw", body=json.dumps(REFUSAL))
    door.says("Hello")
    assert reply_to_all() == 1
    assert said() == ["I cannot help with that."]
    assert Turn.objects.get().finish_reason == "refused"


def test_a_refusal_is_said_where_the_second_is_down(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    models[0].then("raw", body=json.dumps(REFUSAL))
    models[1].then("status", status=503)
    door.says("Hello")
    assert reply_to_all() == 1
    assert said() == ["I cannot help with that."]


def test_where_both_fail_the_turn_says_why_the_first_did(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    models[0].then("status", status=401)
    models[1].then("status", status=400)
    door.says("Hello")
    assert reply_to_all() == 1
    turn = Turn.objects.get()
    assert (turn.status, turn.code, turn.calls) == ("failed", "unauthorized", 2)
    assert Conversation.objects.get().reply_owed is False


def test_a_failure_that_may_pass_is_tried_again_whichever_model_has_it(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI]
) -> None:
    models[0].then("status", times=2, status=401)
    models[1].then("status", status=503)
    door.says("Hello")
    reply_to_all()
    assert Conversation.objects.get().reply_owed is True
    reply_until_given_up()
    assert said() == ["The second one answers."]


# --- how long, and how often -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"status": 429, "headers": HOURS}, {"status": 429, "headers": HOURS}),
        ({"status": 429, "headers": HOURS}, {"status": 401}),
        ({"status": 401}, {"status": 503, "headers": HOURS}),
    ],
)
def test_nobody_waits_for_hours(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI], first: dict[str, Any], second: dict[str, Any]
) -> None:
    for model, options in zip(models, (first, second), strict=True):
        model.then("status", **options)
    door.says("Hello")
    assert reply_to_all() == 1
    conversation = Conversation.objects.get()
    assert said() == [Assistant.objects.get().fallback]
    assert (conversation.reply_owed, conversation.needs_staff_since is not None) == (False, True)


def test_a_wait_of_hours_gives_the_fallback_once_and_calls_staff(door: Door, models: tuple[FakeOpenAI, Any]) -> None:
    Assistant.objects.update(fallback_model="", fallback_provider=None)
    models[0].then("status", times=2, status=429, headers=HOURS)
    door.says("Hello")
    assert reply_to_all() == 1
    door.says("Anybody?")
    assert reply_to_all() == 1
    assert said() == [Assistant.objects.get().fallback]
    assert len(models[0].requests) == 2
    assert Conversation.objects.get().needs_staff_reason


def test_the_shorter_of_two_waits_counts(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    models[0].then("status", status=429, headers=HOURS)
    models[1].then("status", status=503)
    door.says("Hello")
    reply_to_all()
    conversation = Conversation.objects.get()
    assert conversation.reply_owed is True
    assert (conversation.reply_due_at - timezone.now()).total_seconds() < 120
    reply_until_given_up()
    assert said() == ["You said: Hello"]


@pytest.mark.parametrize("second", [True, False], ids=["two models", "one model"])
def test_a_model_that_only_calls_tools_costs_so_many_calls_for_a_message(
    door: Door, models: tuple[FakeOpenAI, FakeOpenAI], second: bool
) -> None:
    if not second:
        Assistant.objects.update(fallback_model="", fallback_provider=None)
    one, two = models
    for model in models:
        model.then("reply", times=50, tool_calls=[("set_topic", {"topic": "x"})])  # whatever `tool_choice` says
    door.says("Hello")
    reply_until_given_up()

    assert len(one.requests) + len(two.requests) == MOST_CALLS
    assert sum(Turn.objects.values_list("calls", flat=True)) == MOST_CALLS
    assert said() == [Assistant.objects.get().fallback]
    assert Conversation.objects.get().needs_staff_since is not None

    before = len(one.requests)
    door.says("And now?")
    reply_to_all()
    assert len(one.requests) > before, "another message, other calls"


def test_tries_that_fail_count_as_calls_for_the_message(door: Door, models: tuple[FakeOpenAI, FakeOpenAI]) -> None:
    for model in models:
        model.then("status", times=50, status=503)
    door.says("Hello")
    reply_until_given_up()
    assert [turn.calls for turn in Turn.objects.order_by("started_at")] == [2, 2, 2, 2]
    assert len(models[0].requests) == len(models[1].requests) == 4
