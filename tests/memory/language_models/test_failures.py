"""Tests of what goes wrong between us and a model: each failure has a code, over real HTTP."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from memory.language_models.asking import complete
from memory.language_models.contract import CompletionRequest, Kind, LLMError, ModelAccess
from tests.fakes.openai import FakeOpenAI
from tests.memory.conftest import access_to

KEY = "sk-very-secret-1234567890"
WORDS = "my card is 4111 1111 1111 1111"
QUESTION = CompletionRequest([{"role": "system", "content": "You are Ada."}, {"role": "user", "content": WORDS}])


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(api_key=KEY) as server:
        yield server


def failure(access: ModelAccess, request: CompletionRequest = QUESTION) -> LLMError:
    with pytest.raises(LLMError) as caught:
        complete(access, request)
    return caught.value


def at(base_url: str, **more: Any) -> ModelAccess:
    return ModelAccess(Kind.COMPATIBLE, "tiny", base_url, seconds=5.0, **more)


@pytest.mark.parametrize(
    ("status", "word", "code", "retryable"),
    [
        (400, None, "bad_request", False),
        (400, "context_length_exceeded", "context_too_long", False),
        (413, None, "context_too_long", False),
        (404, "model_not_found", "model_not_found", False),
        (422, None, "bad_request", False),
        (400, "content_filter", "refused", False),
        (401, "invalid_api_key", "unauthorized", False),
        (403, None, "unauthorized", False),
        (402, None, "insufficient_quota", False),
        (429, "insufficient_quota", "insufficient_quota", False),
        (429, "rate_limit_exceeded", "rate_limited", True),
        (408, None, "http_408", True),
        (409, None, "http_409", True),
        (500, None, "http_500", True),
        (503, None, "http_503", True),
        (529, None, "overloaded", True),
    ],
)
def test_an_error_status_has_a_code(
    fake: FakeOpenAI, status: int, word: str | None, code: str, retryable: bool
) -> None:
    fake.then("status", status=status, code=word)
    error = failure(access_to(fake))
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
    assert error.detail == (word or "")
    assert len(fake.requests) == 1  # the SDK does not try again by itself


@pytest.mark.parametrize(
    ("kind", "code", "retryable"),
    [
        ("nonsense", "bad_answer", True),
        ("html", "bad_answer", True),
        ("no_choices", "bad_answer", True),
        ("no_content", "bad_answer", True),
        ("blank", "bad_answer", True),
        ("cut", "cut_off", True),
        ("reset", "cut_off", True),
    ],
)
def test_a_broken_answer_has_a_code(fake: FakeOpenAI, kind: str, code: str, retryable: bool) -> None:
    fake.then(kind)
    error = failure(access_to(fake))
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
    assert complete(access_to(fake), QUESTION).text  # and the next call is not the worse for it


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        '"text"',
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": ["text"]}',
        '{"choices": [{"message": []}]}',
        '{"choices": [{"message": {"content": [7]}}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_any_nonsense_is_a_bad_answer(fake: FakeOpenAI, body: str) -> None:
    fake.then("raw", body=body)
    assert failure(access_to(fake)).code == "bad_answer"


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "overloaded"}',
        '{"error": {"message": "Provider returned error", "code": 502}}',
        '{"choices": [{"message": {"content": "Half a"}, "finish_reason": "error"}]}',
        '{"choices": [{"message": {"content": "Half a"}, "error": {"code": 502}}]}',
    ],
)
def test_an_error_within_an_answer_is_never_taken_for_words(fake: FakeOpenAI, body: str) -> None:
    fake.then("raw", body=body)
    error = failure(access_to(fake))
    assert (error.code, error.retryable) == ("provider_error", True)


@pytest.mark.parametrize("body", ['{"error": "slow down"}', '{"error": {"code": [1], "type": {"a": 1}}}', "[]", ""])
def test_an_odd_error_body_is_no_trouble(fake: FakeOpenAI, body: str) -> None:
    fake.then("status", status=429, body=body)
    assert failure(access_to(fake)).code == "rate_limited"


def test_a_refusal_of_the_content_filter_is_permanent(fake: FakeOpenAI) -> None:
    fake.then("reply", text="", finish_reason="content_filter")
    error = failure(access_to(fake))
    assert (error.code, error.retryable) == ("refused", False)


def test_a_server_that_is_down_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    error = failure(at(f"http://127.0.0.1:{port}/v1"))
    assert (error.code, error.retryable) == ("connect", True)


def test_a_name_that_nobody_has_is_a_connect_error() -> None:
    assert failure(at("http://llm.invalid/v1")).code == "connect"


@pytest.mark.parametrize("key", ["with\nbreak", "ключ"])
def test_a_key_that_no_header_can_hold_is_a_bad_request(fake: FakeOpenAI, key: str) -> None:
    error = failure(access_to(fake, key=key))
    assert (error.code, error.retryable) == ("bad_request", False)
    assert key not in "".join(traceback.format_exception(error))


def test_half_a_surrogate_pair_in_the_request_is_a_bad_request(fake: FakeOpenAI) -> None:
    request = CompletionRequest([{"role": "user", "content": "\ud83d"}])
    assert failure(access_to(fake), request).code == "bad_request"


# --- what nobody may see ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["status", "reply", "nonsense", "cut", "blank"])
def test_no_text_or_key_reaches_logs_or_errors(fake: FakeOpenAI, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    for name in ("", "openai", "httpx2", "httpcore2", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    fake.then(kind, **({"status": 401, "message": f"Bad key {KEY} for {WORDS}"} if kind == "status" else {}))
    access = access_to(fake, headers={"X-Secret": "hush-hush"})
    shown = repr(access)
    try:
        complete(access, QUESTION)
    except LLMError as error:
        shown += "".join(traceback.format_exception(error)) + repr([error, error.__cause__, error.__context__])
    shown += caplog.text
    assert KEY not in shown
    assert "hush-hush" not in shown
    assert "4111 1111" not in shown
