"""Tests of how long calls of models take, and of many at once, over real HTTP."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from memory.language_models import transport
from memory.language_models.asking import complete
from memory.language_models.contract import CompletionRequest, Kind, LLMError, ModelAccess
from memory.language_models.errors import retry_after
from tests.fakes.openai import FakeOpenAI
from tests.memory.conftest import access_to

KEY = "sk-very-secret-1234567890"
QUESTION = CompletionRequest([{"role": "user", "content": "Where is my parcel?"}])
ESTABLISHED = "01"


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(api_key=KEY) as server:
        yield server


def failure(access: ModelAccess) -> LLMError:
    with pytest.raises(LLMError) as caught:
        complete(access, QUESTION)
    return caught.value


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
def test_a_call_ends_when_its_time_is_up(fake: FakeOpenAI, behaviour: dict[str, Any]) -> None:
    complete(access_to(fake), QUESTION)  # the SDK is imported
    fake.then(**behaviour)
    begun = time.monotonic()
    error = failure(access_to(fake, seconds=0.5))
    assert (error.code, error.retryable) == ("timeout", True)
    assert 0.45 <= time.monotonic() - begun <= 20


def test_adaptations_share_the_time_of_one_call(fake: FakeOpenAI) -> None:
    complete(access_to(fake), QUESTION)
    sentence = "temperature is not supported"
    fake.then("status", status=400, message=sentence, delay=1.5)
    fake.then("hang")
    begun = time.monotonic()
    with pytest.raises(LLMError) as caught:
        complete(access_to(fake, seconds=2.0), CompletionRequest(QUESTION.messages, temperature=0.1))
    assert caught.value.code == "timeout"
    assert [fact.name for fact in caught.value.learned] == ["omits.temperature"]
    assert 1.9 <= time.monotonic() - begun < 1.5 + 2.0  # a time of its own for each would be longer


def test_a_server_that_never_takes_the_connection_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as filler:
        filler.connect(listener.getsockname())  # the queue is full, and nobody accepts
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        begun = time.monotonic()
        assert failure(ModelAccess(Kind.COMPATIBLE, "tiny", base_url, seconds=0.5)).code == "timeout"
        assert time.monotonic() - begun <= 20


def test_calls_that_time_out_cost_no_connection_for_good(fake: FakeOpenAI) -> None:
    access = access_to(fake, seconds=0.3)
    fake.then("hang", times=40)
    with ThreadPoolExecutor(40) as threads:
        errors = list(threads.map(lambda _: failure(access), range(40)))
    assert {error.code for error in errors} == {"timeout"}
    port = int(urlsplit(fake.base_url).port or 0)
    deadline = time.monotonic() + 20
    while connections_to(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert connections_to(port) == 0


def connections_to(port: int) -> int:
    """Return how many connections to the port of this machine their callers keep open."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote == f"0100007F:{port:04X}" and state == ESTABLISHED for _, _, remote, state, *_ in sockets)


def test_a_call_that_waits_holds_up_no_other(fake: FakeOpenAI) -> None:
    fake.delay = 3  # time enough for all to be on their way, also on a slow machine

    def ask(number: int) -> str:
        return complete(access_to(fake), CompletionRequest([{"role": "user", "content": f"{number}"}])).text

    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(ask, range(64)))
    assert answers == [f"You said: {number}" for number in range(64)]
    assert fake.most_in_flight == 64


def test_one_client_serves_all_threads_of_a_provider(fake: FakeOpenAI) -> None:
    access = access_to(fake)
    with ThreadPoolExecutor(16) as threads:
        clients = list(threads.map(lambda _: transport._clients.client(access), range(64)))
    assert len(set(map(id, clients))) == 1
    for other in ({"seconds": 6.0}, {"key": "sk-2"}, {"headers": {"X-Team": "shop"}}, {"query": {"v": "1"}}):
        assert transport._clients.client(access_to(fake, **other)) is not clients[0], other
    assert transport._clients.client(access_to(fake, model="other")) is clients[0]
    assert sum(thread.name == "llm" for thread in threading.enumerate()) <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_calls_for_itself(fake: FakeOpenAI) -> None:
    complete(access_to(fake), QUESTION)
    child = os.fork()
    if not child:
        try:
            os._exit(0 if complete(access_to(fake), QUESTION).text else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    connections = fake.connections
    assert complete(access_to(fake), QUESTION).text  # the parent's connection is still its own
    assert (len(fake.requests), fake.connections) == (3, connections)


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


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "http_503"), (529, "overloaded")])
def test_the_error_says_when_to_come_back(fake: FakeOpenAI, status: int, code: str) -> None:
    fake.then("status", status=status, headers={"Retry-After": "7"})
    error = failure(access_to(fake))
    assert (error.code, error.retry_after) == (code, 7.0)
