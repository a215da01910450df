"""Tests of calls to the LLM, over real HTTP."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memory import llm
from memory.llm import Completion, LLMError, complete, retry_after
from tests.fakes.openai import FakeOpenAI

KEY = "sk-very-secret-1234567890"
WORDS = "my card is 4111 1111 1111 1111"
MESSAGES = [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": WORDS}]


@pytest.fixture
def fake(settings: Any) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(api_key=KEY) as server:
        settings.OPENAI_API_KEY = KEY
        settings.OPENAI_BASE_URL = server.base_url
        settings.OPENAI_MODEL = "default-model"
        settings.OPENAI_TIMEOUT_SECONDS = 5.0
        yield server


def failure(**options: Any) -> LLMError:
    with pytest.raises(LLMError) as caught:
        complete(MESSAGES, **options)
    return caught.value


# --- what is asked and answered --------------------------------------------------------------------------------------
def test_it_asks_and_reads_the_answer(fake: FakeOpenAI) -> None:
    fake.then("reply", text=" Hello there!\n", model="m-2024", usage={"prompt_tokens": 21, "completion_tokens": 3})
    answer = complete(MESSAGES, model="m", temperature=0.3, max_tokens=50)
    assert answer == Completion("Hello there!", "m-2024", tokens_in=21, tokens_out=3, finish_reason="stop")
    [request] = fake.requests
    assert request.body == {"model": "m", "messages": MESSAGES, "temperature": 0.3, "max_tokens": 50}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_what_is_not_given_is_left_to_the_settings_and_the_server(fake: FakeOpenAI) -> None:
    complete(MESSAGES)
    assert fake.requests[0].body == {"model": "default-model", "messages": MESSAGES}


def test_a_server_of_one_s_own_needs_no_key(fake: FakeOpenAI, settings: Any) -> None:
    fake.api_key = settings.OPENAI_API_KEY = ""
    complete(MESSAGES)
    assert "authorization" not in fake.requests[0].headers


def test_settings_are_read_on_every_call(fake: FakeOpenAI, settings: Any) -> None:
    complete(MESSAGES)
    with FakeOpenAI() as other:
        settings.OPENAI_BASE_URL = other.base_url
        complete(MESSAGES)
        assert len(other.requests) == len(fake.requests) == 1


def test_openai_itself_is_told_the_limit_by_its_newer_name() -> None:
    assert (
        llm._max_tokens_parameter("")
        == llm._max_tokens_parameter("https://api.openai.com/v1")
        == "max_completion_tokens"
    )
    assert llm._max_tokens_parameter("http://127.0.0.1:8080/v1") == "max_tokens"


def test_an_answer_cut_at_max_tokens_keeps_its_text(fake: FakeOpenAI) -> None:
    fake.then("reply", text="The first half of", finish_reason="length")
    answer = complete(MESSAGES)
    assert (answer.text, answer.finish_reason) == ("The first half of", "length")


def test_what_postgresql_cannot_keep_is_replaced(fake: FakeOpenAI) -> None:
    fake.then("reply", text="a\x00b\ud83dc😀", model="m\x00" + "x" * 500)
    answer = complete(MESSAGES)
    assert answer.text == "a\ufffdb\ufffdc😀"
    assert answer.model.startswith("m\ufffdx")
    assert len(answer.model) == 100


@pytest.mark.parametrize("usage", [None, [], "many", {"prompt_tokens": "7"}, {"prompt_tokens": -1}, {}])
def test_a_server_that_counts_no_tokens_is_no_trouble(fake: FakeOpenAI, usage: Any) -> None:
    fake.then("reply", text="Hello", model=None, usage=usage)
    assert complete(MESSAGES) == Completion("Hello", "default-model", tokens_in=0, tokens_out=0)


# --- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "word", "code", "retryable"),
    [
        (400, "context_length_exceeded", "bad_request", False),
        (404, "model_not_found", "bad_request", False),
        (413, None, "bad_request", False),
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
        (529, None, "http_529", True),
    ],
)
def test_an_error_status_has_a_code(
    fake: FakeOpenAI, status: int, word: str | None, code: str, retryable: bool
) -> None:
    fake.then("status", status=status, code=word)
    error = failure()
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
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
    error = failure()
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
    assert complete(MESSAGES).text  # and the next call is not the worse for it


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        '"text"',
        '{"error": "overloaded"}',
        '{"choices": {}}',
        '{"choices": [null]}',
        '{"choices": ["text"]}',
        '{"choices": [{"message": []}]}',
        '{"choices": [{"message": {"content": ["a"]}}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_any_nonsense_is_a_bad_answer(fake: FakeOpenAI, body: str) -> None:
    fake.then("raw", body=body)
    assert failure().code == "bad_answer"


@pytest.mark.parametrize("body", ['{"error": "slow down"}', '{"error": {"code": [1], "type": {"a": 1}}}', "[]", ""])
def test_an_odd_error_body_is_no_trouble(fake: FakeOpenAI, body: str) -> None:
    fake.then("status", status=429, body=body)
    assert failure().code == "rate_limited"


def test_a_refusal_of_the_content_filter_is_permanent(fake: FakeOpenAI) -> None:
    fake.then("reply", text="", finish_reason="content_filter")
    error = failure()
    assert (error.code, error.retryable) == ("refused", False)


def test_a_server_that_is_down_is_a_connect_error(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.OPENAI_BASE_URL = f"http://127.0.0.1:{port}/v1"
    error = failure()
    assert (error.code, error.retryable) == ("connect", True)


def test_a_name_that_nobody_has_is_a_connect_error(settings: Any) -> None:
    settings.OPENAI_BASE_URL = "http://llm.invalid/v1"
    assert failure().code == "connect"


def test_neither_key_nor_address_is_said_plainly(settings: Any) -> None:
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = ""
    error = failure()
    assert (error.code, error.retryable) == ("unauthorized", False)
    assert "OPENAI_API_KEY" in str(error)


@pytest.mark.parametrize("key", ["with\nbreak", "ключ"])
def test_a_key_that_no_header_can_hold_is_a_bad_request(fake: FakeOpenAI, settings: Any, key: str) -> None:
    settings.OPENAI_API_KEY = key
    error = failure()
    assert (error.code, error.retryable) == ("bad_request", False)
    assert key not in "".join(traceback.format_exception(error))


def test_half_a_surrogate_pair_in_the_request_is_a_bad_request(fake: FakeOpenAI) -> None:
    with pytest.raises(LLMError) as caught:
        complete([{"role": "user", "content": "\ud83d"}])
    assert caught.value.code == "bad_request"


# --- how long it takes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "behaviour",
    [
        {"kind": "hang"},
        {"kind": "drip", "where": "body", "every": 0.05},
        {"kind": "drip", "where": "head", "every": 0.05},
        {"kind": "reply", "delay": 30},
    ],
    ids=lambda behaviour: f"{behaviour['kind']}-{behaviour.get('where', '')}",
)
def test_a_call_ends_when_its_time_is_up(fake: FakeOpenAI, settings: Any, behaviour: dict[str, Any]) -> None:
    complete(MESSAGES)  # the SDK is imported
    settings.OPENAI_TIMEOUT_SECONDS = 0.5
    fake.then(**behaviour)
    begun = time.monotonic()
    error = failure()
    assert (error.code, error.retryable) == ("timeout", True)
    assert 0.45 <= time.monotonic() - begun <= 20


def test_a_server_that_never_takes_the_connection_is_a_timeout(settings: Any) -> None:
    settings.OPENAI_TIMEOUT_SECONDS = 0.5
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as filler:
        filler.connect(listener.getsockname())  # the queue is full, and nobody accepts
        settings.OPENAI_BASE_URL = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        begun = time.monotonic()
        assert failure().code == "timeout"
        assert time.monotonic() - begun <= 20


def test_calls_that_time_out_cost_no_connection_for_good(fake: FakeOpenAI, settings: Any) -> None:
    settings.OPENAI_TIMEOUT_SECONDS = 0.3
    fake.then("hang", times=40)
    with ThreadPoolExecutor(40) as threads:
        errors = list(threads.map(lambda _: failure(), range(40)))
    assert {error.code for error in errors} == {"timeout"}
    client = llm._clients.client(KEY, fake.base_url, 0.3)
    assert len(client._client._transport._pool.connections) <= 1  # type: ignore[attr-defined]


def test_a_call_that_waits_holds_up_no_other(fake: FakeOpenAI) -> None:
    fake.delay = 3  # time enough for all to be on their way, also on a slow machine
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda number: complete([{"role": "user", "content": f"{number}"}]), range(64)))
    assert [answer.text for answer in answers] == [f"You said: {number}" for number in range(64)]
    assert fake.most_in_flight == 64


def test_one_client_serves_all_threads(fake: FakeOpenAI) -> None:
    with ThreadPoolExecutor(16) as threads:
        clients = list(threads.map(lambda _: llm._clients.client(KEY, fake.base_url, 5.0), range(64)))
    assert len(set(map(id, clients))) == 1
    assert llm._clients.client(KEY, fake.base_url, 6.0) is not clients[0]
    assert sum(thread.name == "llm" for thread in threading.enumerate()) <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_calls_for_itself(fake: FakeOpenAI) -> None:
    complete(MESSAGES)
    child = os.fork()
    if not child:
        try:
            os._exit(0 if complete(MESSAGES).text else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(fake.requests) == 2


# --- when to come back -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=1_445_412_480.0) == seconds  # 07:28:00 of that day


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "http_503")])
def test_the_error_says_when_to_come_back(fake: FakeOpenAI, status: int, code: str) -> None:
    fake.then("status", status=status, headers={"Retry-After": "7"})
    error = failure()
    assert (error.code, error.retry_after) == (code, 7.0)


# --- what nobody may see ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["status", "reply", "nonsense", "cut", "blank"])
def test_no_text_or_key_reaches_logs_or_errors(fake: FakeOpenAI, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    for name in ("", "openai", "httpx2", "httpcore2", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    fake.then(kind, **({"status": 401, "message": f"Bad key {KEY} for {WORDS}"} if kind == "status" else {}))
    shown = ""
    try:
        complete(MESSAGES)
    except LLMError as error:
        shown = "".join(traceback.format_exception(error)) + repr([error, error.__cause__, error.__context__])
    shown += caplog.text
    assert KEY not in shown
    assert "4111 1111" not in shown


def test_the_sdk_is_imported_only_by_a_call() -> None:
    script = "import sys, memory.llm; print(sorted({'openai', 'httpx2', 'anyio'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout.replace("'", '"')) == []
