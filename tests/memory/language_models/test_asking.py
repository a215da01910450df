"""Tests of questions to a model and of its answers, over real HTTP: chat completions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from memory.language_models.asking import MOST_ADAPTATIONS, complete
from memory.language_models.contract import Completion, CompletionRequest, Fact, LLMError
from tests.fakes.openai import FakeOpenAI
from tests.memory.conftest import access_to

KEY = "sk-very-secret-1234567890"
MESSAGES = [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": "Where is my parcel?"}]
QUESTION = CompletionRequest(MESSAGES)
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(api_key=KEY) as server:
        yield server


# --- what is asked and answered --------------------------------------------------------------------------------------
def test_it_asks_and_reads_the_answer(fake: FakeOpenAI) -> None:
    fake.then("reply", text=" Hello there!\n", model="m-2024", usage={"prompt_tokens": 21, "completion_tokens": 3})
    answer = complete(access_to(fake, model="m"), CompletionRequest(MESSAGES, temperature=0.3, max_tokens=50))
    assert answer == Completion("Hello there!", "m-2024", tokens_in=21, tokens_out=3, given=answer.given)
    [request] = fake.requests
    assert request.body == {"model": "m", "messages": MESSAGES, "temperature": 0.3, "max_tokens": 50}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_what_is_not_given_is_left_to_the_server(fake: FakeOpenAI) -> None:
    complete(access_to(fake), QUESTION)
    assert fake.requests[0].body == {"model": "tiny", "messages": MESSAGES}


def test_a_server_of_one_s_own_needs_no_key(fake: FakeOpenAI) -> None:
    fake.api_key = ""
    complete(access_to(fake), QUESTION)
    assert "authorization" not in fake.requests[0].headers


def test_each_call_goes_where_its_access_says(fake: FakeOpenAI) -> None:
    with FakeOpenAI(api_key="sk-other") as other:
        complete(access_to(fake), QUESTION)
        complete(access_to(other), QUESTION)
        assert len(other.requests) == len(fake.requests) == 1


def test_a_provider_s_headers_and_parameters_go_with_each_request(fake: FakeOpenAI) -> None:
    body = {"temperature": 1, "max_completion_tokens": 9}
    access = access_to(fake, headers={"X-Team": "shop"}, body=body)
    complete(access, CompletionRequest(MESSAGES, temperature=0.2))
    [request] = fake.requests
    assert request.headers["x-team"] == "shop"
    assert request.body == {"model": "tiny", "messages": MESSAGES, **body}, "the provider's take precedence"


def test_an_answer_cut_at_max_tokens_keeps_its_text(fake: FakeOpenAI) -> None:
    fake.then("reply", text="The first half of", finish_reason="length")
    answer = complete(access_to(fake), QUESTION)
    assert (answer.text, answer.finish_reason) == ("The first half of", "length")


def test_what_postgresql_cannot_keep_is_replaced(fake: FakeOpenAI) -> None:
    fake.then("reply", text="a\x00b\ud83dc😀", model="m\x00" + "x" * 500)
    answer = complete(access_to(fake), QUESTION)
    assert answer.text == "a\ufffdb\ufffdc😀"
    assert answer.model.startswith("m\ufffdx")
    assert len(answer.model) == 100


@pytest.mark.parametrize("usage", [None, [], "many", {"prompt_tokens": "7"}, {"prompt_tokens": -1}, {}])
def test_a_server_that_counts_no_tokens_is_no_trouble(fake: FakeOpenAI, usage: Any) -> None:
    fake.then("reply", text="Hello", model=None, usage=usage)
    answer = complete(access_to(fake), QUESTION)
    assert (answer.text, answer.model, answer.tokens_in, answer.tokens_out) == ("Hello", "tiny", 0, 0)


def test_tokens_that_came_from_a_cache_are_counted(fake: FakeOpenAI) -> None:
    usage = {"prompt_tokens": 21.0, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 16}}
    fake.then("reply", text="Hello", usage=usage)
    answer = complete(access_to(fake), QUESTION)
    assert (answer.tokens_in, answer.tokens_cached) == (21, 16)


def test_tool_calls_are_read_and_answered_in_the_next_round(fake: FakeOpenAI) -> None:
    from memory.language_models.contract import ToolRound

    fake.then("reply", tool_calls=[("look_up", {"number": 7})])
    called = complete(access_to(fake), CompletionRequest(MESSAGES, tools=[TOOL]))
    [call] = called.tool_calls
    assert (call.name, json.loads(call.arguments), called.text) == ("look_up", {"number": 7}, "")
    fake.then("reply", text="It is here.")
    rounds = (ToolRound(called, ("In the depot.",)),)
    answer = complete(access_to(fake), CompletionRequest(MESSAGES, rounds=rounds, tools=[TOOL], may_call=False))
    assert answer.text == "It is here."
    said, answered = fake.requests[1].body["messages"][2:]
    assert (said["role"], said["tool_calls"][0]["id"]) == ("assistant", call.id)
    assert answered == {"role": "tool", "tool_call_id": call.id, "content": "In the depot."}
    assert fake.requests[1].body["tool_choice"] == "none"


def test_a_call_of_a_model_that_may_call_nothing_is_not_followed(fake: FakeOpenAI) -> None:
    fake.then("reply", text="Here.", tool_calls=[("look_up", {})])
    answer = complete(access_to(fake), CompletionRequest(MESSAGES, tools=[TOOL], may_call=False))
    assert (answer.text, answer.tool_calls) == ("Here.", ())


# --- what is learned -------------------------------------------------------------------------------------------------
def test_a_parameter_that_is_refused_is_renamed_or_left_out_and_remembered(fake: FakeOpenAI) -> None:
    refuse(fake, "max_tokens")
    refuse(fake, "temperature")
    wanted = CompletionRequest(MESSAGES, temperature=0.3, max_tokens=50)
    answer = complete(access_to(fake), wanted)
    assert answer.learned == (
        Fact("max_tokens_name", "max_completion_tokens", "max_tokens"),
        Fact("omits.temperature", True, "temperature"),
    )
    assert fake.requests[2].body == {"model": "tiny", "messages": MESSAGES, "max_completion_tokens": 50}

    again = complete(access_to(fake).learning(answer.learned), wanted)
    assert (len(fake.requests), fake.requests[3].body) == (4, fake.requests[2].body)
    assert again.learned == ()


def test_a_parameter_of_the_provider_s_own_is_never_left_out(fake: FakeOpenAI) -> None:
    refuse(fake, "temperature")
    with pytest.raises(LLMError) as caught:
        complete(access_to(fake, body={"temperature": 1}), QUESTION)
    assert (caught.value.code, caught.value.detail, len(fake.requests)) == ("parameter_refused", "temperature", 1)


def test_a_model_without_tools_answers_without_them(fake: FakeOpenAI) -> None:
    fake.then("status", status=400, message="This model does not support tools.")
    answer = complete(access_to(fake), CompletionRequest(MESSAGES, tools=[TOOL]))
    assert answer.learned == (Fact("tools", False, "tools"),)
    assert "tools" not in fake.requests[1].body
    assert "tool_choice" not in fake.requests[1].body


def test_a_model_that_refuses_everything_is_left_after_a_few_tries(fake: FakeOpenAI) -> None:
    for name in ("temperature", "max_tokens", "max_completion_tokens", "max_tokens", "max_completion_tokens") * 3:
        refuse(fake, name)
    with pytest.raises(LLMError) as caught:
        complete(access_to(fake), CompletionRequest(MESSAGES, temperature=0.3, max_tokens=50))
    assert caught.value.code == "parameter_refused"
    assert len(fake.requests) <= MOST_ADAPTATIONS + 1
    assert caught.value.learned, "what it taught is kept though it failed"


def refuse(fake: FakeOpenAI, name: str) -> None:
    """Let the next request be refused because of the parameter of that name, as OpenAI does."""
    error = {"message": f"Unsupported parameter: '{name}'.", "type": "invalid_request_error"}
    body = json.dumps({"error": {**error, "param": name, "code": "unsupported_parameter"}})
    fake.then("status", status=400, body=body)


# --- what it costs ---------------------------------------------------------------------------------------------------
def test_the_sdks_are_imported_only_by_a_call() -> None:
    heavy = "{'openai', 'anthropic', 'httpx', 'httpx2', 'anyio'}"
    script = f"import sys, memory.language_models.asking; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout.replace("'", '"')) == []
