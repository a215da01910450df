"""Anthropic's Messages API, by the SDK over real HTTP, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memory.language_models.contract import Kind, ModelAccess
from tests.fakes.anthropic import FakeAnthropic
from tests.memory.asked import ASKED, HOW, ask, ask_rounds, failure

pytestmark = pytest.mark.parametrize("how", HOW)


@pytest.fixture
def fake() -> Iterator[FakeAnthropic]:
    """A server that refuses what Anthropic refuses."""
    with FakeAnthropic(api_key="sk-ant-1") as server:
        yield server


@pytest.fixture
def access(fake: FakeAnthropic) -> ModelAccess:
    """The access to its strongest model."""
    return ModelAccess(kind=Kind.ANTHROPIC, model="claude-opus-4-8", base_url=fake.base_url, key="sk-ant-1", seconds=10)


def test_it_answers_and_the_system_part_is_cached(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    messages = [{"role": "system", "content": "You sell kettles. " * 400}, ASKED[1]]
    first = ask(how, access, messages=messages)
    second = ask(how, access, messages=messages)

    assert first.text == "You said: Hello, who are you?"
    assert (first.tokens_cached, second.tokens_in) == (0, first.tokens_in)
    assert second.tokens_cached > 1_000
    assert fake.requests[-1].body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert not [request.problem for request in fake.requests if request.problem]


def test_two_tool_rounds_give_the_thinking_back(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    fake.then("reply", thinking="First the number.", tool_calls=[("find_article", {"name": "kettle"})])
    fake.then(
        "reply", text="One moment.", thinking="Then the price.", tool_calls=[("price_of", {"number": "K-17"})] * 2
    )
    fake.then("reply", text="It costs 41.70.")

    answer = ask_rounds(how, access, ["K-17", "41.70", "41.70"], reasoning_effort="high", temperature=0.5)

    assert answer.text == "It costs 41.70."
    assert not [request.problem for request in fake.requests if request.problem]
    messages = fake.requests[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    thinking = messages[1]["content"][0]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "First the number.")
    assert thinking["signature"]
    assert [block["type"] for block in messages[-1]["content"]] == ["tool_result", "tool_result"]


def test_redacted_thinking_is_given_back(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    fake.then("reply", thinking="secret", redacted=True, tool_calls=[("find_article", {"name": "kettle"})])
    fake.then("reply", text="It is K-17.")

    assert ask_rounds(how, access, ["K-17"], reasoning_effort="low").text == "It is K-17."
    assert not [request.problem for request in fake.requests if request.problem]


def test_a_model_without_effort_is_asked_without(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    haiku = ModelAccess(Kind.ANTHROPIC, "claude-haiku-4-5", base_url=fake.base_url, key="sk-ant-1", seconds=10)

    answer = ask(how, haiku, reasoning_effort="low")

    assert answer.text == "You said: Hello, who are you?"
    assert answer.learned
    sent = len(fake.requests)
    ask(how, haiku.learning(answer.learned), reasoning_effort="low")
    assert len(fake.requests) == sent + 1


@pytest.mark.parametrize(
    ("stop_reason", "text", "finish"),
    [
        ("end_turn", "Hello.", "stop"),
        ("max_tokens", "It costs a lot. And", "length"),
        ("model_context_window_exceeded", "It costs", "length"),
        ("refusal", "I cannot help with that.", "refused"),
    ],
)
def test_a_stop_reason_is_told(
    how: str, fake: FakeAnthropic, access: ModelAccess, stop_reason: str, text: str, finish: str
) -> None:
    fake.then("reply", text=text, stop_reason=stop_reason)

    answer = ask(how, access)

    assert (answer.text, answer.finish_reason) == (text, finish)


def test_a_refusal_without_words_is_an_error_at_once(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    fake.then("reply", stop_reason="refusal")

    assert failure(how, access).code == "refused"
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("kind", "options", "code", "retryable"),
    [
        ("status", {"status": 429, "headers": {"Retry-After": "7"}}, "rate_limited", True),
        ("status", {"status": 529}, "overloaded", True),
        ("status", {"status": 500}, "http_500", True),
        ("status", {"status": 402}, "insufficient_quota", False),
        ("status", {"status": 403}, "unauthorized", False),
        ("status", {"status": 413}, "context_too_long", False),
        ("cut", {}, "cut_off", True),
        ("reset", {}, "cut_off", True),
    ],
)
def test_a_failure_has_a_code(
    how: str,
    fake: FakeAnthropic,
    access: ModelAccess,
    kind: str,
    options: dict[str, object],
    code: str,
    retryable: bool,
) -> None:
    fake.then(kind, **options)

    error = failure(how, access)

    assert (error.code, error.retryable) == (code, retryable)
    assert error.retry_after == (7 if "headers" in options else None)


def test_a_wrong_key_and_an_unknown_model_are_told_apart(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    wrong_key = ModelAccess(Kind.ANTHROPIC, access.model, base_url=fake.base_url, key="no", seconds=10)
    no_model = ModelAccess(Kind.ANTHROPIC, "claude-9", base_url=fake.base_url, key="sk-ant-1", seconds=10)

    assert failure(how, wrong_key).code == "unauthorized"
    assert failure(how, no_model).code == "model_not_found"


def test_a_prompt_that_is_too_long_teaches_the_window(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    error = failure(how, access, messages=[{"role": "user", "content": "x" * 4_800_000}])

    assert error.code == "context_too_long"
    assert {fact.name: fact.value for fact in error.learned} == {"context_window": 1_000_000}


@pytest.mark.parametrize("kind", ["early", "error", "silent", "cut"])
def test_half_a_stream_is_no_answer(how: str, fake: FakeAnthropic, access: ModelAccess, kind: str) -> None:
    if how == "whole":
        pytest.skip("a whole answer has no such end")
    short = ModelAccess(Kind.ANTHROPIC, access.model, base_url=fake.base_url, key="sk-ant-1", seconds=0.5)
    fake.then(kind, text="one two three four")

    code = {"early": "cut_off", "cut": "cut_off", "error": "provider_error", "silent": "timeout"}[kind]
    assert failure(how, short).code == code


def test_a_cap_above_the_model_s_own_is_lowered(how: str, fake: FakeAnthropic, access: ModelAccess) -> None:
    answer = ask(how, access, max_tokens=200_000, temperature=0.5)

    assert answer.text == "You said: Hello, who are you?"
    assert {fact.name: fact.value for fact in answer.learned} == {"most_output": 128_000, "omits.temperature": True}
