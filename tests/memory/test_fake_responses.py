"""The fake of the Responses API is as strict as OpenAI, and OpenAI's SDK understands it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.fakes.responses_api import FakeResponses

LUNA, ASTRA, PLAIN = "gpt-6-luna", "gpt-6-astra", "gpt-4.1-like"
TOOL = {"type": "function", "name": "add_step", "description": "", "parameters": {"type": "object"}, "strict": False}
CHAT_TOOL = {"type": "function", "function": {"name": "add_step", "parameters": {"type": "object"}}}
STATELESS: dict[str, Any] = {"store": False, "include": ["reasoning.encrypted_content"]}
ASKED = [{"role": "user", "content": "Measure my roof."}]


@pytest.fixture
def fake() -> Iterator[FakeResponses]:
    with FakeResponses(api_key="sk-1") as server:
        yield server


@pytest.fixture
def client(fake: FakeResponses) -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-1", base_url=fake.base_url, max_retries=0, timeout=5)


def items_of(response: Any) -> list[dict[str, Any]]:
    return [item.to_dict() for item in response.output]


def answer_to(call: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": "Added."}


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def refused(call: Any) -> Any:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    return caught.value


# --- answers ---------------------------------------------------------------------------------------------------------
def test_it_answers_text_or_items_and_counts_tokens(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=PLAIN, input="Hello there", instructions="Be kind.")
    assert answer.output_text == "You said: Hello there"
    assert (answer.status, answer.usage.output_tokens, answer.usage.output_tokens_details.reasoning_tokens) == (
        "completed",
        5,
        0,
    )
    assert [item.type for item in answer.output] == ["message"]


def test_a_reasoning_model_gives_a_reasoning_item_first(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=LUNA, input=ASKED, reasoning={"summary": "auto"}, **STATELESS)
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].encrypted_content
    assert answer.output[0].summary[0].text == "Thinking about it."
    assert answer.usage.output_tokens_details.reasoning_tokens == 64


def test_a_small_cap_is_spent_on_reasoning(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=LUNA, input=ASKED, max_output_tokens=32)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == ""
    without = client.responses.create(model=LUNA, input=ASKED, max_output_tokens=32, reasoning={"effort": "none"})
    assert without.output_text == "You said: Measure my roof."


def test_a_long_answer_is_cut_at_the_cap(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.reply = lambda _messages: "word " * 100
    answer = client.responses.create(model=PLAIN, input=ASKED, max_output_tokens=20)
    assert (answer.status, len(answer.output_text)) == ("incomplete", 80)


def test_refusals_filters_and_failures_have_their_own_shapes(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("reply", refusal="I can't help with that.")
    fake.then("reply", text="Half a", finish_reason="content_filter")
    fake.then("failed", code="rate_limit_exceeded")
    refusal, filtered, failed = (client.responses.create(model=LUNA, input=ASKED) for _ in range(3))
    assert refusal.output[-1].content[0].refusal == "I can't help with that."
    assert filtered.incomplete_details.reason == "content_filter"
    assert (failed.status, failed.error.code, failed.output) == ("failed", "rate_limit_exceeded", [])


def test_probabilities_come_where_they_are_asked_for(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=PLAIN, input=ASKED, include=["message.output_text.logprobs"])
    assert len(answer.output[0].content[0].logprobs) == 5


def test_a_prompt_that_begins_like_an_earlier_one_is_cached(client: openai.OpenAI) -> None:
    rules = "Be kind. " * 600
    first, second = (
        client.responses.create(model=PLAIN, instructions=rules, input=text).usage.input_tokens_details
        for text in ("One", "Two")
    )
    assert (first.cached_tokens, second.cached_tokens) == (0, 1280)


# --- streams ---------------------------------------------------------------------------------------------------------
def test_the_sdk_reads_a_stream(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("reply", text="On my way.", tool_calls=[("add_step", {"title": "Roof"}), ("add_step", {"title": "Gut"})])
    with client.responses.stream(model=LUNA, input=ASKED, tools=[TOOL], reasoning={"summary": "auto"}) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == final.output_text == "On my way."
    assert [call.arguments for call in calls_of(final)] == ['{"title": "Roof"}', '{"title": "Gut"}']
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert kinds[-1] == "completed"
    seen = {"reasoning_summary_text.delta", "output_item.done", "content_part.added", "output_text.done"}
    assert seen | {"function_call_arguments.delta", "function_call_arguments.done"} <= set(kinds)


def test_what_it_answers_has_the_types_of_the_sdk(fake: FakeResponses, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": LUNA, "input": ASKED, "tools": [TOOL], "reasoning": {"summary": "auto"}}
    fake.then("reply", times=2, text="On my way.", tool_calls=[("add_step", {"title": "Roof"})])
    whole = client.responses.create(**asked, **STATELESS)
    for answer in [whole, *client.responses.create(**asked, **STATELESS, stream=True)]:
        type(answer).model_validate(answer.to_dict())


def test_a_streamed_answer_may_be_a_refusal_incomplete_or_failed(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("reply", refusal="I can't help with that.")
    fake.then("reply", text="Half a", finish_reason="length")
    fake.then("failed", code="server_error")
    streams = [list(client.responses.create(model=PLAIN, input=ASKED, stream=True)) for _ in range(3)]
    refusal = "".join(event.delta for event in streams[0] if event.type == "response.refusal.delta")
    assert refusal == "I can't help with that."
    assert [stream[-1].type for stream in streams] == ["response.completed", "response.incomplete", "response.failed"]
    assert streams[1][-1].response.incomplete_details.reason == "max_output_tokens"
    assert streams[2][-1].response.error.code == "server_error"


@pytest.mark.parametrize("rst", [False, True])
def test_a_stream_that_is_cut_fails_in_the_client(fake: FakeResponses, client: openai.OpenAI, rst: bool) -> None:
    fake.then("cut", text="One two three four", after=2, rst=rst)
    stream = client.responses.create(model=PLAIN, input=ASKED, stream=True)
    said: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        said.extend(event.delta for event in stream if event.type == "response.output_text.delta")
    assert said == ["One ", "two "]


def test_a_stream_that_ends_early_ends_without_its_last_event(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("early", text="One two three four")
    events = list(client.responses.create(model=PLAIN, input=ASKED, stream=True))
    assert events[-1].type == "response.output_text.delta"


def test_an_error_within_a_stream_has_two_forms(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("error", code="server_error")
    fake.then("error", code="server_error", nested=True)
    flat = list(client.responses.create(model=PLAIN, input=ASKED, stream=True))[-1]
    assert (flat.type, flat.code) == ("error", "server_error")
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model=PLAIN, input=ASKED, stream=True))
    assert caught.value.body["code"] == "server_error"


# --- tools -----------------------------------------------------------------------------------------------------------
def test_two_rounds_of_tools_take_the_reasoning_items_back(fake: FakeResponses, client: openai.OpenAI) -> None:
    given: list[Any] = [*ASKED]
    for calls in (2, 1):
        fake.then("reply", tool_calls=[("add_step", {})] * calls)
        answer = client.responses.create(model=LUNA, input=given, tools=[TOOL], **STATELESS)
        assert [item.type for item in answer.output] == ["reasoning", *["function_call"] * calls]
        given += [*items_of(answer), *map(answer_to, calls_of(answer))]
    last = client.responses.create(model=LUNA, input=given, tools=[TOOL], tool_choice="none", **STATELESS)
    assert last.output_text == "You said: Measure my roof."


@pytest.fixture
def first(fake: FakeResponses, client: openai.OpenAI) -> Any:
    fake.then("reply", tool_calls=[("add_step", {})])
    return client.responses.create(model=LUNA, input=ASKED, tools=[TOOL], **STATELESS)


def again(client: openai.OpenAI, items: list[Any], model: str = LUNA) -> Any:
    return refused(lambda: client.responses.create(model=model, input=[*ASKED, *items], store=False))


def test_a_call_without_its_reasoning_item_is_refused(client: openai.OpenAI, first: Any) -> None:
    reasoning, call = items_of(first)
    error = again(client, [call, answer_to(first.output[1])])
    assert (error.status_code, error.param) == (400, "input")
    assert f"without its required 'reasoning' item: '{reasoning['id']}'" in error.message


def test_a_reasoning_item_without_its_encrypted_content_is_not_found(client: openai.OpenAI, first: Any) -> None:
    reasoning, call = items_of(first)
    del reasoning["encrypted_content"]
    assert again(client, [reasoning, call, answer_to(first.output[1])]).status_code == 404


def test_a_changed_reasoning_item_is_refused(client: openai.OpenAI, first: Any) -> None:
    reasoning, call = items_of(first)
    changed = {**reasoning, "encrypted_content": "gAAAAAother"}
    assert again(client, [changed, call, answer_to(first.output[1])]).code == "invalid_encrypted_content"


def test_reasoning_needs_what_follows_it_and_a_model_that_reasons(client: openai.OpenAI, first: Any) -> None:
    reasoning, call = items_of(first)
    assert "without its required following item" in again(client, [reasoning, ASKED[0]]).message
    given = [reasoning, call, answer_to(first.output[1])]
    assert "only be provided to a reasoning" in again(client, given, PLAIN).message


def test_calls_and_their_outputs_come_in_pairs(client: openai.OpenAI, first: Any) -> None:
    reasoning, call = items_of(first)
    assert "No tool output found" in again(client, [reasoning, call]).message
    assert "No tool call found" in again(client, [answer_to(first.output[1])]).message


def test_stored_items_are_found_again(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("reply", tool_calls=[("add_step", {})])
    before = client.responses.create(model=LUNA, input=ASKED, tools=[TOOL])
    answer = client.responses.create(
        model=LUNA, input=[answer_to(before.output[1])], previous_response_id=before.id, tools=[TOOL]
    )
    assert answer.output_text == "You said: Measure my roof."
    lost = refused(lambda: client.responses.create(model=LUNA, input="Hi", previous_response_id="resp_1"))
    assert lost.code == "previous_response_not_found"


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "more", "param", "code"),
    [
        (LUNA, {"messages": []}, "messages", "unknown_parameter"),
        (LUNA, {"max_tokens": 100}, "max_tokens", "unknown_parameter"),
        (LUNA, {"temperature": 0.3}, "temperature", None),
        (LUNA, {"top_p": 0.3}, "top_p", None),
        (LUNA, {"include": ["message.output_text.logprobs"]}, "include", "unsupported_parameter"),
        (LUNA, {"reasoning": {"effort": "minimal"}}, "reasoning.effort", "unsupported_value"),
        (PLAIN, {"reasoning": {"effort": "low"}}, "reasoning.effort", "unsupported_parameter"),
        (PLAIN, {"include": ["reasoning.encrypted_content"]}, "include", None),
        (PLAIN, {"max_output_tokens": 10}, "max_output_tokens", "integer_below_min_value"),
        (PLAIN, {"stream_options": {"include_usage": True}}, "stream_options.include_usage", "unknown_parameter"),
        (PLAIN, {"tools": [CHAT_TOOL]}, "tools[0].name", "missing_required_parameter"),
        (PLAIN, {"tools": [{**TOOL, "strict": True}]}, "tools[0].parameters", "invalid_function_parameters"),
        (PLAIN, {"tool_choice": "required"}, "tool_choice", None),
        (PLAIN, {"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        (PLAIN, {"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0]", "invalid_value"),
        (
            PLAIN,
            {"input": [{"role": "assistant", "content": [{"type": "input_text"}]}]},
            "input[0].content[0]",
            "invalid_value",
        ),
        (PLAIN, {"input": [{"role": "user", "content": "x", "author": "y"}]}, "input[0].author", "unknown_parameter"),
        ("gpt-4o-mini", {}, "model", "model_not_found"),
    ],
)
def test_what_openai_refuses_is_refused_by_name(
    client: openai.OpenAI, model: str, more: dict[str, Any], param: str, code: str | None
) -> None:
    body = {"model": model, "input": "Hi", **more}
    error = refused(lambda: client.responses.create(model=model, input="Hi", extra_body=body))
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_a_prompt_beyond_the_window_is_refused_whole_and_streamed(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.count = len
    long = "x" * 400_001
    assert refused(lambda: client.responses.create(model=PLAIN, input=long)).code == "context_length_exceeded"
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model=PLAIN, input=long, stream=True))
    assert caught.value.body["code"] == "context_length_exceeded"


def test_a_rate_limit_says_how_long_to_wait(fake: FakeResponses, client: openai.OpenAI) -> None:
    fake.then("status", status=429, headers={"Retry-After": "7"}, code="rate_limit_exceeded", type="requests")
    error = refused(lambda: client.responses.create(model=LUNA, input="Hi"))
    assert (error.status_code, error.code, error.response.headers["retry-after"]) == (429, "rate_limit_exceeded", "7")


def test_another_key_is_refused(fake: FakeResponses) -> None:
    other = openai.OpenAI(api_key="sk-2", base_url=fake.base_url, max_retries=0)
    assert refused(lambda: other.models.list()).code == "invalid_api_key"


# --- the other APIs --------------------------------------------------------------------------------------------------
def test_the_list_of_models_says_when_each_shuts_down(client: openai.OpenAI) -> None:
    dates = {model.id: model.shutdown_date for model in client.models.list()}
    assert (dates[LUNA], dates[PLAIN]) == (None, "2027-01-14")
    assert client.models.retrieve(PLAIN).owned_by == "system"
    assert refused(lambda: client.models.retrieve("gpt-4o")).status_code == 404


def test_chat_completions_refuse_tools_of_a_reasoning_model(client: openai.OpenAI) -> None:
    ask = client.chat.completions.create
    body: dict[str, Any] = {"messages": ASKED, "tools": [CHAT_TOOL]}
    assert refused(lambda: ask(model=LUNA, **body)).param == "reasoning_effort"
    assert refused(lambda: ask(model=LUNA, reasoning_effort="low", **body)).param == "reasoning_effort"
    assert ask(model=LUNA, reasoning_effort="none", **body).choices[0].message.content == "You said: Measure my roof."
    assert ask(model=PLAIN, **body).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"max_tokens": 100}, 400, "max_tokens"),
        ({"temperature": 0.3}, 400, "temperature"),
        ({"logprobs": True}, 403, "logprobs"),
        ({"reasoning_effort": "minimal"}, 400, "reasoning_effort"),
    ],
)
def test_chat_completions_refuse_what_a_reasoning_model_lacks(
    client: openai.OpenAI, more: dict[str, Any], status: int, param: str
) -> None:
    error = refused(lambda: client.chat.completions.create(model=LUNA, messages=ASKED, **more))
    assert (error.status_code, error.param) == (status, param)


def test_a_model_of_responses_alone_has_no_chat_completions(client: openai.OpenAI) -> None:
    error = refused(lambda: client.chat.completions.create(model=ASTRA, messages=ASKED))
    assert (error.status_code, error.param) == (404, "model")
    assert client.responses.create(model=ASTRA, input="Hi").output_text == "You said: Hi"


def test_embeddings_are_served_too(fake: FakeResponses) -> None:
    body = {"model": "text-embedding-3-small", "input": ["a roof"]}
    answer = requests.post(
        f"{fake.base_url}/embeddings", json=body, headers={"Authorization": "Bearer sk-1"}, timeout=5
    )
    assert len(answer.json()["data"]) == 1
