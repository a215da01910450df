"""The fake LLM server keeps what it promises, so that tests which rest on it prove something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.openai import FakeOpenAI

GOOD = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def ask(base_url: str, body: Any, path: str = "/chat/completions", **headers: str) -> requests.Response:
    return requests.post(base_url + path, json=body, headers=headers, timeout=10)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"model": "m"},
        {"model": "m", "messages": []},
        {"model": "", "messages": GOOD["messages"]},
        {"model": "m", "messages": [{"role": "memory", "content": "Hi"}]},
        {"model": "m", "messages": [{"role": "user", "content": None}]},
        {"model": "m", "messages": [{"role": "user", "content": "Hi", "by_staff": True}]},
        {**GOOD, "temperature": 2.1},
        {**GOOD, "temperature": None},
        {**GOOD, "max_tokens": 0},
        {**GOOD, "goal": "sell"},
        {**GOOD, "stream_options": {"include_usage": True}},
    ],
)
def test_a_request_of_another_shape_is_refused(fake: FakeOpenAI, body: Any) -> None:
    fake.then("status", status=500)
    assert ask(fake.base_url, body).status_code == 400
    assert fake.requests[0].problem
    assert ask(fake.base_url, GOOD).status_code == 500  # still to come


def test_another_key_or_path_is_refused() -> None:
    with FakeOpenAI(api_key="sk-1") as fake:
        assert ask(fake.base_url, GOOD).status_code == 401
        assert ask(fake.base_url, GOOD, Authorization="Bearer sk-2").status_code == 401
        assert ask(fake.base_url, GOOD, Authorization="Bearer sk-1").status_code == 200
        assert ask(fake.base_url, GOOD, path="/completions").status_code == 404


def test_what_was_ordered_happens_in_order_and_then_no_more(fake: FakeOpenAI) -> None:
    fake.then("status", times=2, status=503)
    fake.then("reply", text="Back")
    answers = [ask(fake.base_url, GOOD) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    said = [answer.json()["choices"][0]["message"]["content"] for answer in answers[2:]]
    assert said == ["Back", "You said: Hi"]


def test_an_unknown_kind_is_a_mistake_in_the_test(fake: FakeOpenAI) -> None:
    with pytest.raises(ValueError, match="explode"):
        fake.then("explode")


def test_it_serves_and_obeys_other_processes() -> None:
    command = [sys.executable, "-m", "tests.fakes.openai"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            base_url = process.stdout.readline().strip()
            root = base_url.removesuffix("/v1")
            assert ask(root, {"kind": "status", "times": 1, "status": 500}, path="/_then").status_code == 200
            assert ask(root, {"kind": "explode"}, path="/_then").status_code == 400
            assert [ask(base_url, GOOD).status_code for _ in range(2)] == [500, 200]
            seen = requests.get(f"{root}/_requests", timeout=10).json()
            assert [request["body"] for request in seen] == [GOOD, GOOD]
        finally:
            process.terminate()


@pytest.mark.parametrize("module", ["responses_api", "anthropic", "dialects"])
def test_the_other_fakes_of_model_servers_serve_other_processes_too(module: str) -> None:
    command = [sys.executable, "-m", f"tests.fakes.{module}", "--api-key", "k"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            root = process.stdout.readline().strip().removesuffix("/v1")
            headers = {"Authorization": "Bearer k", "anthropic-version": "2023-06-01"}
            assert requests.get(f"{root}/v1/models", headers=headers, timeout=10).status_code == 200
            assert requests.get(f"{root}/v1/models", timeout=10).status_code == 401
        finally:
            process.terminate()


def test_fields_that_another_server_gave_are_refused(fake: FakeOpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Added."}
    for message, status in (
        ({"tool_calls": [call]}, 200),
        ({"tool_calls": [call], "refusal": None, "annotations": []}, 200),
        ({"tool_calls": [call], "reasoning_content": "Hm."}, 400),
        ({"tool_calls": [{**call, "extra_content": {}}]}, 400),
    ):
        given = [*GOOD["messages"], {"role": "assistant", "content": None, **message}, result]
        assert ask(fake.base_url, {**GOOD, "messages": given}).status_code == status
