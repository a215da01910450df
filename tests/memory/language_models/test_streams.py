"""Tests of answers that are read while they are written, over real HTTP: chat completions."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from memory import event_loop
from memory.language_models import answers, asking
from memory.language_models.contract import Completion, CompletionRequest, LLMError, ModelAccess
from tests.fakes.openai import FakeOpenAI
from tests.memory.conftest import access_to

MESSAGES = [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": "Count, please."}]
QUESTION = CompletionRequest(MESSAGES)
LONG = "One two three four five six seven eight nine ten."
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def read(access: ModelAccess, request: CompletionRequest = QUESTION) -> tuple[list[str], Completion | LLMError]:
    """Return the pieces of a streamed answer, and its completion or the error that ended it."""
    pieces: list[str] = []

    async def run() -> Completion | LLMError:
        try:
            async for piece in asking.stream(access, request):
                if isinstance(piece, Completion):
                    return piece
                pieces.append(piece)
        except LLMError as error:
            return error
        raise AssertionError("The stream ended without a completion.")

    return pieces, event_loop.run(run(), 60)


def failure(access: ModelAccess, request: CompletionRequest = QUESTION) -> LLMError:
    outcome = read(access, request)[1]
    assert isinstance(outcome, LLMError)
    return outcome


# --- what comes ------------------------------------------------------------------------------------------------------
def test_the_pieces_together_are_the_completion(fake: FakeOpenAI) -> None:
    fake.then("reply", text=LONG)
    pieces, completion = read(access_to(fake, model="m"), CompletionRequest(MESSAGES, temperature=0.3, max_tokens=50))
    assert isinstance(completion, Completion)
    assert "".join(pieces) == completion.text == LONG
    assert len(pieces) > 5, "word by word"
    assert (completion.model, completion.tokens_out, completion.finish_reason) == ("m", len(LONG) // 4, "stop")
    assert fake.requests[0].body == {
        "model": "m",
        "messages": MESSAGES,
        "temperature": 0.3,
        "max_tokens": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tool_calls_come_with_the_completion(fake: FakeOpenAI) -> None:
    fake.then("reply", text="One moment.", tool_calls=[("look_up", {"number": 7}), ("look_up", {"number": 8})])
    pieces, completion = read(access_to(fake), CompletionRequest(MESSAGES, tools=[TOOL]))
    assert isinstance(completion, Completion)
    assert "".join(pieces) == "One moment."
    assert [json.loads(call.arguments) for call in completion.tool_calls] == [{"number": 7}, {"number": 8}]


def test_an_answer_cut_at_max_tokens_says_so(fake: FakeOpenAI) -> None:
    fake.then("reply", text="The first half of", finish_reason="length")
    _, completion = read(access_to(fake))
    assert isinstance(completion, Completion)
    assert (completion.text, completion.finish_reason) == ("The first half of", "length")


def test_what_postgresql_cannot_keep_is_replaced(fake: FakeOpenAI) -> None:
    fake.then("reply", text="a\x00b \ud83d c")
    pieces, _ = read(access_to(fake))
    assert "".join(pieces) == "a\ufffdb \ufffd c"


def test_a_server_that_refuses_stream_options_is_asked_without_and_this_is_remembered(fake: FakeOpenAI) -> None:
    fake.then("status", status=400, message="Unrecognized request argument supplied: stream_options")
    fake.then("reply", text=LONG)
    pieces, completion = read(access_to(fake))
    assert isinstance(completion, Completion)
    assert "".join(pieces) == LONG
    assert [(fact.name, fact.value) for fact in completion.learned] == [("omits.stream_options", True)]
    read(access_to(fake).learning(completion.learned))
    assert ["stream_options" in request.body for request in fake.requests] == [True, False, False]


# --- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "options", "code", "retryable", "seen"),
    [
        ("cut", {"after": 3}, "cut_off", True, "One two three"),
        ("error", {"after": 3}, "provider_error", True, "One two three"),
        ("silent", {"after": 3}, "timeout", True, "One two three"),
        ("reply", {"finish_reason": "content_filter"}, "refused", False, LONG),
        ("reply", {"finish_reason": "error"}, "provider_error", True, LONG),
    ],
)
def test_a_stream_that_breaks_has_a_code_and_its_beginning_was_read(
    fake: FakeOpenAI, kind: str, options: dict[str, Any], code: str, retryable: bool, seen: str
) -> None:
    fake.then(kind, text=LONG, **options)
    pieces, error = read(access_to(fake, seconds=0.5))
    assert isinstance(error, LLMError)
    assert (error.code, error.retryable) == (code, retryable)
    assert "".join(pieces).strip() == seen


@pytest.mark.parametrize(
    ("status", "word", "code", "retryable"),
    [
        (401, "invalid_api_key", "unauthorized", False),
        (404, "model_not_found", "model_not_found", False),
        (429, "insufficient_quota", "insufficient_quota", False),
        (429, None, "rate_limited", True),
        (503, None, "http_503", True),
    ],
)
def test_an_error_status_has_the_code_of_a_whole_answer(
    fake: FakeOpenAI, status: int, word: str | None, code: str, retryable: bool
) -> None:
    fake.then("status", status=status, code=word)
    error = failure(access_to(fake))
    assert (error.code, error.retryable, len(fake.requests)) == (code, retryable, 1)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("data: [DONE]\n\n", "cut_off"),
        ('data: {"choices": [{"delta": {"content": "Half"}}]}\n\n', "cut_off"),
        ('data: {"choices": [{"delta": {"content": " \\n"}, "finish_reason": "stop"}]}\n\n', "bad_answer"),
        ('data: {"choices": "text"}\n\ndata: 7\n\ndata: [DONE]\n\n', "cut_off"),
        ("data: {{{\n\n", "bad_answer"),
        ("", "cut_off"),
    ],
)
def test_nonsense_in_a_stream_is_no_answer(fake: FakeOpenAI, body: str, code: str) -> None:
    fake.then("raw", body=body, content_type="text/event-stream")
    error = failure(access_to(fake))
    assert (error.code, error.retryable) == (code, True)


def test_a_server_that_is_down_is_a_connect_error(fake: FakeOpenAI) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    error = failure(access_to(fake, base_url=f"http://127.0.0.1:{port}/v1"))
    assert (error.code, error.retryable) == ("connect", True)


def test_half_a_surrogate_pair_in_the_request_is_a_bad_request(fake: FakeOpenAI) -> None:
    error = failure(access_to(fake), CompletionRequest([{"role": "user", "content": "\ud83d"}]))
    assert error.code == "bad_request"


# --- how long it takes -----------------------------------------------------------------------------------------------
def test_a_model_that_never_ends_is_cut_at_the_longest_text(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LONGEST_TEXT", 1_000)
    fake.then("endless", text="la ")
    pieces, completion = read(access_to(fake))
    assert isinstance(completion, Completion)
    assert completion.finish_reason == "length"
    assert 990 <= len("".join(pieces)) <= 1_000


def test_a_stream_has_an_end_however_long_it_goes_on(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LONGEST_SECONDS", 0.5)
    fake.then("endless", text="la ", every=0.02)
    assert failure(access_to(fake)).code == "timeout"


def test_the_time_is_for_each_piece_and_not_for_the_whole(fake: FakeOpenAI) -> None:
    read(access_to(fake))  # the SDK is imported
    fake.then("reply", text=LONG, every=0.15)
    begun = time.monotonic()
    pieces, completion = read(access_to(fake, seconds=1.0))
    assert isinstance(completion, Completion)
    assert time.monotonic() - begun > 1.0
    assert "".join(pieces) == LONG


def test_a_reader_that_goes_away_leaves_no_request_behind(fake: FakeOpenAI) -> None:
    fake.then("endless", text="la ", every=0.01)

    async def run() -> None:
        stream = asking.stream(access_to(fake), QUESTION)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    event_loop.run(run(), 20)
    deadline = time.monotonic() + 10
    while fake.in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fake.in_flight == 0


def test_many_streams_are_read_at_once(fake: FakeOpenAI) -> None:
    fake.delay = 1.0

    async def one(number: int) -> str:
        request = CompletionRequest([{"role": "user", "content": f"{number}"}])
        *pieces, _ = [piece async for piece in asking.stream(access_to(fake), request)]
        return "".join(piece for piece in pieces if isinstance(piece, str))

    async def run() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(32)))

    assert event_loop.run(run(), 30) == [f"You said: {number}" for number in range(32)]
    assert fake.most_in_flight == 32
