"""The connections to a model provider: used again, shared by all keys, enough for many calls, and closed at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memory import event_loop
from memory.language_models.asking import complete, stream
from memory.language_models.contract import Completion, CompletionRequest, Kind, LLMError, ModelAccess
from tests.fakes.openai import FakeOpenAI
from tests.fakes.server import FakeServer, Reply
from tests.memory.conftest import access_to

QUESTION = CompletionRequest([{"role": "user", "content": "Where is my parcel?"}])
ANSWER = b'{"choices": [{"message": {"content": "Here."}, "finish_reason": "stop"}]}'


class Provider(FakeServer):
    """Answers with the headers given, but holds every request until `wanted` of them are here."""

    def __init__(self, wanted: int = 1, **headers: str) -> None:
        self.together, self.headers = threading.Barrier(wanted), headers
        super().__init__()

    def handle(self, request: Any) -> Reply:
        """Return the same answer each time."""
        self.together.wait(60)
        return Reply(200, ANSWER, self.headers)

    def access(self, key: str = "sk-1") -> ModelAccess:
        """Return the access to it with this key."""
        return ModelAccess(Kind.COMPATIBLE, "tiny", f"{self.url}/v1", key=key, seconds=60)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def test_one_call_after_another_uses_one_connection_also_with_another_key() -> None:
    with Provider() as provider:
        assert [complete(provider.access(key), QUESTION).text for key in ("a", "a", "b", "a", "b")] == ["Here."] * 5
        assert provider.connections == 1


def test_what_one_key_was_given_is_not_sent_with_another() -> None:
    with Provider(**{"Set-Cookie": "session=of-a"}) as provider:
        for key in ("a", "b"):
            complete(provider.access(key), QUESTION)
        last = provider.requests[-1].headers
        assert (last["authorization"], last.get("cookie")) == ("Bearer b", None)


def test_hundreds_of_calls_at_once_are_all_answered() -> None:
    with Provider(200) as provider, ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(lambda _: complete(provider.access(), QUESTION).text, range(200)))
        assert answers == ["Here."] * 200
        assert provider.connections == 200


def test_a_stream_that_was_read_leaves_its_connection_to_the_next(fake: FakeOpenAI) -> None:
    async def read() -> Completion:
        [whole] = [piece async for piece in stream(access_to(fake), QUESTION) if isinstance(piece, Completion)]
        return whole

    assert [event_loop.run(read(), 20).text for _ in range(3)] == ["You said: Where is my parcel?"] * 3
    assert fake.connections == 1


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/v1", "http:///v1", "http://127.0.0.1:99999/v1", "http://\udc80/v1"]
)
@pytest.mark.parametrize("kind", [Kind.COMPATIBLE, Kind.ANTHROPIC])
def test_an_address_that_is_none_is_a_bad_request(kind: Kind, address: str) -> None:
    with pytest.raises(LLMError) as caught:
        complete(ModelAccess(kind, "tiny", address, seconds=5), QUESTION)
    assert (caught.value.code, caught.value.retryable) == ("bad_request", False)


def test_a_process_that_ends_says_nothing_of_its_connections(fake: FakeOpenAI) -> None:
    script = (
        "from memory.language_models.asking import complete\n"
        "from memory.language_models.contract import CompletionRequest, Kind, ModelAccess\n"
        f"access = ModelAccess(Kind.COMPATIBLE, 'tiny', {fake.base_url!r}, seconds=20)\n"
        "complete(access, CompletionRequest([{'role': 'user', 'content': 'Hello'}]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
