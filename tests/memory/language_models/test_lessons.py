"""Lessons of refusals: what holds for the model is kept, one assistant's mistake is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from memory.language_models import capabilities
from memory.language_models.contract import Kind, LLMError, ModelAccess
from memory.language_models.errors import of_status
from memory.text import to_last_sentence
from tests.fakes.openai import FakeOpenAI
from tests.memory.asked import HOW, TOOLS, ask

SENT = {
    "model": "m",
    "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
    "tools": list(TOOLS),
    "tool_choice": "auto",
    "temperature": 1.5,
    "max_tokens": 400,
    "reasoning_effort": "banana",
}


def refused(
    message: str, *, kind: Kind = Kind.COMPATIBLE, sent: Any = SENT, status: int = 400, **error: Any
) -> LLMError:
    """Return the error of a request that was refused so."""
    return of_status(status, {"error": {"message": message, **error}}, {}, sent, ModelAccess(kind, "m"))


def learned(error: LLMError) -> list[tuple[str, Any, bool]]:
    """Return what was learned: name, value, and whether it is kept."""
    return [(fact.name, fact.value, fact.keep) for fact in error.learned]


@pytest.mark.parametrize(
    ("message", "error", "expected"),
    [
        (
            "Unsupported parameter: 'temperature' is not supported.",
            {"param": "temperature"},
            ("omits.temperature", True),
        ),
        ("Unrecognized request argument supplied: reasoning_effort", {}, ("effort_with_tools", "none")),
        ("registry.example/m does not support tools", {}, ("tools", False)),
        ("Function calling is not supported by this model.", {}, ("tools", False)),
        ('"auto" tool choice requires --enable-auto-tool-choice', {}, ("tools", False)),
        ("max_tokens: 400 > 256, which is the maximum for m", {"param": "max_tokens"}, ("most_output", 256)),
        ("System role not supported", {}, ("system_role", False)),
    ],
)
def test_what_a_model_does_not_have_is_kept(message: str, error: dict[str, Any], expected: tuple[str, Any]) -> None:
    assert learned(refused(message, **error)) == [(*expected, True)]


@pytest.mark.parametrize(
    ("message", "error", "expected"),
    [
        (
            "Unsupported value: 'reasoning_effort' does not support 'banana' here. Supported values are: 'low'.",
            {"param": "reasoning_effort", "code": "unsupported_value"},
            "effort_with_tools",
        ),
        ("temperature: Input should be less than or equal to 1", {"param": "temperature"}, "omits.temperature"),
        ("Invalid 'temperature': decimal above maximum value.", {"param": "temperature"}, "omits.temperature"),
    ],
)
def test_a_wrong_value_changes_one_request_alone(message: str, error: dict[str, Any], expected: str) -> None:
    [(name, _value, keep)] = learned(refused(message, **error))
    assert (name, keep) == (expected, False)


def test_a_cap_below_the_least_is_raised_and_never_dropped() -> None:
    sent = {**SENT, "max_output_tokens": 10}
    message = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 10 instead."
    assert learned(refused(message, sent=sent, param="max_output_tokens")) == [("least_output", 16, False)]
    assert capabilities.cap(10, {"least_output": 16}) == 16


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Invalid schema for function 'price_of': anyOf is not supported.", "tools[1].function.parameters"),
        ("tools.1.custom.input_schema: input_schema does not support oneOf at the top level", None),
    ],
)
def test_one_refused_schema_takes_no_other_tool_away(message: str, param: str | None) -> None:
    assert learned(refused(message, param=param)) == [("omits_tool.price_of", True, False)]
    left = capabilities.adapted(SENT, {"omits_tool.price_of": True}, {})
    assert [tool["function"]["name"] for tool in left["tools"]] == ["find_article"]


@pytest.mark.parametrize(
    "message",
    [
        "Function call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.",
        "Please ensure that the number of function response parts is equal to the number of function call parts.",
        "An assistant message with 'tool_calls' must be followed by tool messages.",
    ],
)
def test_a_complaint_about_calls_is_no_lack_of_tools(message: str) -> None:
    assert learned(refused(message)) == []


@pytest.mark.parametrize(
    ("message", "error", "code", "window"),
    [
        (
            "Invalid 'tools[1].function.description': string too long. Expected maximum length 1024, but got 3542.",
            {"code": "string_above_max_length", "param": "tools[1].function.description"},
            "parameter_refused",
            None,
        ),
        (
            "'max_completion_tokens' is too large: 4096. This model's maximum context length is 32768 tokens and your"
            " request has 30000 input tokens (4096 > 32768 - 30000).",
            {},
            "context_too_long",
            32_768,
        ),
        ("prompt is too long: 208310 tokens > 200000 maximum", {}, "context_too_long", 200_000),
        ("Your credit balance is too low to access the API.", {}, "insufficient_quota", None),
    ],
)
def test_a_window_is_read_where_it_stands(message: str, error: dict[str, Any], code: str, window: int | None) -> None:
    found = refused(message, **error)
    assert found.code == code
    assert {fact.name: fact.value for fact in found.learned}.get("context_window") == window


def test_the_ratio_follows_what_is_counted_up_and_down() -> None:
    assert capabilities.ratio_learned(3_000, 900, {}) == (), "a short prompt says little"
    [up] = capabilities.ratio_learned(6_000, 2_000, {})
    assert 1.5 < up.value < 3
    [down] = capabilities.ratio_learned(2_000, 2_000, {"token_ratio": up.value})
    assert 1 <= down.value < up.value
    assert capabilities.ratio_learned(2_100, 2_000, {}) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is red. The total price is $41.70 incl", "It is red. The total price is $41.70 incl…"),
        (
            "Look here. It is all at https://shop.example/kettles",
            "Look here. It is all at https://shop.example/kettles…",
        ),
        ("They are red. They are good. And", "They are red. They are good."),
        ("这是红色的水壶。价格是四十一元。还有", "这是红色的水壶。价格是四十一元。"),
    ],
)
def test_a_cut_text_ends_at_a_sentence_and_never_inside_a_number(text: str, expected: str) -> None:
    assert to_last_sentence(text) == expected


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """A compatible server."""
    with FakeOpenAI() as server:
        yield server


@pytest.mark.parametrize("how", HOW)
def test_half_a_text_beside_an_error_is_no_answer(how: str, fake: FakeOpenAI) -> None:
    access = ModelAccess(Kind.COMPATIBLE, "m", base_url=fake.base_url, seconds=10)
    body = '{"error": {"message": "x", "code": 502}, "choices": [{"%s": {"content": "Half a"}, "finish_reason": null}]}'
    raw = body % ("message" if how == "whole" else "delta")
    if how == "streamed":
        fake.then("raw", body=f"data: {raw}\n\ndata: [DONE]\n\n", content_type="text/event-stream")
    else:
        fake.then("raw", body=raw)
    with pytest.raises(LLMError) as caught:
        ask(how, access)
    assert (caught.value.code, caught.value.retryable) == ("provider_error", True)


@pytest.mark.parametrize("how", HOW)
def test_calls_that_repeat_id_and_name_in_each_piece_are_one(how: str, fake: FakeOpenAI) -> None:
    if how == "whole":
        pytest.skip("a whole call has no pieces")
    access = ModelAccess(Kind.COMPATIBLE, "m", base_url=fake.base_url, seconds=10)
    pieces = ('{"name":', ' "kettle"}')
    calls = [{"index": 0, "id": "c1", "function": {"name": "find_article", "arguments": piece}} for piece in pieces]
    events = "".join(f"data: {json.dumps({'choices': [{'delta': {'tool_calls': [call]}}]})}\n\n" for call in calls)
    end = 'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\ndata: [DONE]\n\n'
    fake.then("raw", body=events + end, content_type="text/event-stream")
    answer = ask(how, access, tools=TOOLS)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("find_article", '{"name": "kettle"}')]


def test_a_header_that_staff_named_is_sent_without_a_key(fake: FakeOpenAI) -> None:
    headers = {"authorization": "Basic abc", "X-Api-Key": "k1"}
    ask("whole", ModelAccess(Kind.COMPATIBLE, "m", base_url=fake.base_url, seconds=10, headers=headers))
    sent = fake.requests[-1].headers
    assert (sent["authorization"], sent["x-api-key"]) == ("Basic abc", "k1")
    ask("whole", ModelAccess(Kind.COMPATIBLE, "m", base_url=fake.base_url, seconds=10))
    assert "authorization" not in fake.requests[-1].headers


def test_unmarked_reasoning_is_forgotten_after_answers_without() -> None:
    known: dict[str, Any] = {}
    for seen, expected in [(True, 3), (False, 2), (False, 1), (True, 3), (False, 2), (False, 1), (False, 0)]:
        [fact] = capabilities.unmarked_reasoning(known, seen=seen)
        known[fact.name] = fact.value
        assert fact.value == expected
    assert capabilities.unmarked_reasoning(known, seen=False) == ()
