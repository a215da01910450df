"""OpenAI's Responses API, by the SDK over real HTTP, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memory.language_models.contract import Kind, ModelAccess, Picture
from tests.fakes.responses_api import FakeResponses
from tests.memory.asked import ASKED, HOW, ask, ask_rounds, failure

pytestmark = pytest.mark.parametrize("how", HOW)
LUNA = "gpt-6-luna"


@pytest.fixture
def fake() -> Iterator[FakeResponses]:
    """A server that refuses what OpenAI refuses."""
    with FakeResponses(api_key="sk-1") as server:
        yield server


@pytest.fixture
def access(fake: FakeResponses) -> ModelAccess:
    """The access to its cheapest model."""
    return ModelAccess(kind=Kind.OPENAI, model=LUNA, base_url=fake.base_url, key="sk-1", seconds=10)


def test_it_answers_and_counts_tokens_and_nothing_is_stored(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    answer = ask(how, access, max_tokens=500, reasoning_effort="low")

    assert (answer.text, answer.finish_reason) == ("You said: Hello, who are you?", "stop")
    assert answer.tokens_in > 0
    assert answer.tokens_out > 0
    body = fake.requests[-1].body
    assert (body["store"], body["instructions"], body["reasoning"]) == (False, ASKED[0]["content"], {"effort": "low"})
    assert body["input"] == [ASKED[1]]


def test_two_tool_rounds_give_the_reasoning_back(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    fake.then("reply", tool_calls=[("find_article", {"name": "kettle"})])
    fake.then("reply", tool_calls=[("price_of", {"number": "K-17"}), ("price_of", {"number": "K-18"})])
    fake.then("reply", text="It costs 41.70.")

    answer = ask_rounds(how, access, ["K-17", "41.70", "50"])

    assert answer.text == "It costs 41.70."
    kinds = [item.get("type", "message") for item in fake.requests[-1].body["input"]]
    assert kinds == [
        "message",
        *("reasoning", "function_call", "function_call_output"),
        *("reasoning", "function_call", "function_call", "function_call_output", "function_call_output"),
    ]
    assert all(item["encrypted_content"] for item in fake.requests[-1].body["input"] if item.get("type") == "reasoning")
    assert not [request.problem for request in fake.requests if request.problem]


def test_a_refused_parameter_is_left_out_and_remembered(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    answer = ask(how, access, temperature=0.2, confidence=True)

    assert answer.text == "You said: Hello, who are you?"
    learned = {fact.name: fact.value for fact in answer.learned}
    assert learned["omits.temperature"] is True
    sent = len(fake.requests)
    ask(how, access.learning(answer.learned), temperature=0.2, confidence=True)
    assert len(fake.requests) == sent + 1


def test_a_refusal_is_the_answer(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    fake.then("reply", text="", refusal="I cannot help with that.")

    answer = ask(how, access)

    assert (answer.text, answer.finish_reason) == ("I cannot help with that.", "refused")


def test_a_cut_answer_says_so(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    fake.then("reply", text="It costs a lot. And", finish_reason="length")

    answer = ask(how, access)

    assert (answer.text, answer.finish_reason) == ("It costs a lot. And", "length")


def test_a_cap_that_is_spent_on_reasoning_is_raised_once(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    answer = ask(how, access, max_tokens=60)

    assert answer.text
    assert [request.body["max_output_tokens"] for request in fake.requests] == [60, 240]
    assert {fact.name: fact.value for fact in answer.learned}["output_factor"] == 4
    fake.then("reply", reasoning_tokens=5_000, times=2)
    assert failure(how, access, max_tokens=60).code == "no_room"
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    ("kind", "options", "code", "retryable"),
    [
        ("status", {"status": 429, "headers": {"Retry-After": "7"}}, "rate_limited", True),
        ("status", {"status": 429, "code": "insufficient_quota"}, "insufficient_quota", False),
        ("status", {"status": 500}, "http_500", True),
        ("status", {"status": 529}, "overloaded", True),
        ("status", {"status": 401, "code": "invalid_api_key"}, "unauthorized", False),
        ("failed", {"code": "server_error"}, "provider_error", True),
        ("reply", {"text": "", "finish_reason": "content_filter"}, "refused", False),
        ("cut", {}, "cut_off", True),
        ("reset", {}, "cut_off", True),
        ("nonsense", {}, "bad_answer", True),
        ("html", {}, "bad_answer", True),
    ],
)
def test_a_failure_has_a_code(
    how: str,
    fake: FakeResponses,
    access: ModelAccess,
    kind: str,
    options: dict[str, object],
    code: str,
    retryable: bool,
) -> None:
    fake.then(kind, **options)

    error = failure(how, access)

    expected = {"bad_answer", "cut_off"} if how == "streamed" and kind in ("nonsense", "html") else {code}
    assert error.code in expected
    assert error.retryable is retryable
    assert error.retry_after == (7 if "headers" in options else None)


def test_a_wrong_key_and_an_unknown_model_are_told_apart(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    wrong_key = ModelAccess(Kind.OPENAI, LUNA, base_url=fake.base_url, key="sk-2", seconds=10)
    no_model = ModelAccess(Kind.OPENAI, "gpt-9", base_url=fake.base_url, key="sk-1", seconds=10)

    assert failure(how, wrong_key).code == "unauthorized"
    assert failure(how, no_model).code == "model_not_found"


def test_a_prompt_that_is_too_long_says_so(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    long = [{"role": "user", "content": "x" * 2_000_000}]

    error = failure(how, access, messages=long)

    assert (error.code, error.retryable) == ("context_too_long", False)


@pytest.mark.parametrize("kind", ["early", "error", "silent"])
def test_half_a_stream_is_no_answer(how: str, fake: FakeResponses, access: ModelAccess, kind: str) -> None:
    if how == "whole":
        pytest.skip("a whole answer has no such end")
    short = ModelAccess(Kind.OPENAI, LUNA, base_url=fake.base_url, key="sk-1", seconds=0.5)
    fake.then(kind, text="one two three four")

    code = {"early": "cut_off", "error": "provider_error", "silent": "timeout"}[kind]
    assert failure(how, short).code == code


def test_a_picture_is_shown_with_the_last_message(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    ask(how, access, pictures=[Picture("image/png", b"\x89PNG")])

    parts = fake.requests[-1].body["input"][-1]["content"]
    assert [part["type"] for part in parts] == ["input_text", "input_image"]
    assert parts[1]["image_url"] == "data:image/png;base64,iVBORw=="


def test_refused_probabilities_cost_no_tool_round(how: str, fake: FakeResponses, access: ModelAccess) -> None:
    fake.then("reply", tool_calls=[("find_article", {"name": "kettle"})])
    fake.then("reply", text="It is K-17.")

    answer = ask_rounds(how, access, ["K-17"], confidence=True)

    assert answer.text == "It is K-17."
    assert len([request for request in fake.requests if request.problem]) == 1
