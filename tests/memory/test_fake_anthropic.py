"""The fake of the Messages API is as strict as Anthropic, and Anthropic's SDK understands it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest
import requests

from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.anthropic_rules import Model

OPUS, HAIKU = "claude-opus-4-8", "claude-haiku-4-5"
ASKED = [{"role": "user", "content": "Measure my roof."}]
TOOL = {"name": "add_step", "description": "Adds a step.", "input_schema": {"type": "object"}}
THINKING: dict[str, Any] = {"thinking": {"type": "adaptive"}}
CACHED = {"cache_control": {"type": "ephemeral"}}
PLAIN: dict[str, Any] = {"model": HAIKU, "max_tokens": 1_000, "messages": ASKED}
CLEVER: dict[str, Any] = {"model": OPUS, "max_tokens": 1_000, "messages": ASKED, "tools": [TOOL], **THINKING}


@pytest.fixture
def fake() -> Iterator[FakeAnthropic]:
    with FakeAnthropic(api_key="sk-ant-1") as server:
        yield server


@pytest.fixture
def client(fake: FakeAnthropic) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sk-ant-1", base_url=fake.base_url, max_retries=0, timeout=5)


def said(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def given_back(message: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [block.to_dict() for block in message.content]}


def results_of(message: Any) -> dict[str, Any]:
    calls = [block.id for block in message.content if block.type == "tool_use"]
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": each, "content": "1"} for each in calls]}


def refused(client: anthropic.Anthropic, **body: Any) -> Any:
    """Send the body as it is, since the SDK's types do not have all that other clients send."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=HAIKU, max_tokens=1_000, messages=ASKED, extra_body={**PLAIN, **body})
    return caught.value


# --- answers ---------------------------------------------------------------------------------------------------------
def test_it_answers_and_counts_tokens(fake: FakeAnthropic, client: anthropic.Anthropic) -> None:
    message = client.messages.create(**PLAIN, system="Be kind.")
    assert (said(message), message.stop_reason, message.usage.output_tokens) == (
        "You said: Measure my roof.",
        "end_turn",
        6,
    )
    assert fake.requests[0].headers["authorization"] == "Bearer sk-ant-1"
    assert message._request_id.startswith("req_")


def test_the_older_header_of_keys_is_taken_too(fake: FakeAnthropic) -> None:
    for headers, status in (({"x-api-key": "sk-ant-1"}, 200), ({"x-api-key": "sk-ant-2"}, 401), ({}, 401)):
        sent = {"anthropic-version": "2023-06-01", **headers}
        assert requests.post(f"{fake.url}/v1/messages", json=PLAIN, headers=sent, timeout=5).status_code == status
    without = requests.post(f"{fake.url}/v1/messages", json=PLAIN, headers={"x-api-key": "sk-ant-1"}, timeout=5)
    assert "anthropic-version" in without.json()["error"]["message"]


@pytest.mark.parametrize(
    "reason", ["end_turn", "max_tokens", "refusal", "pause_turn", "model_context_window_exceeded", "stop_sequence"]
)
def test_an_answer_ends_for_the_reason_that_was_ordered(
    fake: FakeAnthropic, client: anthropic.Anthropic, reason: str
) -> None:
    fake.then("reply", times=2, text="Half a", stop_reason=reason)
    whole = client.messages.create(**PLAIN)
    with client.messages.stream(**PLAIN) as stream:
        streamed = stream.get_final_message()
    assert whole.stop_reason == streamed.stop_reason == reason
    assert said(streamed) == "Half a"
    assert (whole.stop_details is not None) == (reason == "refusal")


def test_an_answer_is_cut_at_the_cap_and_at_stop_sequences(fake: FakeAnthropic, client: anthropic.Anthropic) -> None:
    fake.reply = lambda _messages: "word " * 100
    short = client.messages.create(**{**PLAIN, "max_tokens": 20})
    assert (short.stop_reason, len(said(short))) == ("max_tokens", 80)
    stopped = client.messages.create(**PLAIN, stop_sequences=["d w"])
    assert (said(stopped), stopped.stop_reason, stopped.stop_sequence) == ("wor", "stop_sequence", "d w")


def test_a_small_cap_is_spent_on_thinking(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**{**CLEVER, "max_tokens": 50})
    assert (said(message), message.stop_reason) == ("", "max_tokens")


def test_the_system_part_is_written_to_the_cache_and_then_read(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "Be kind. " * 600, **CACHED}]
    first, second = (client.messages.create(**PLAIN, system=system).usage for _ in range(2))
    assert (first.cache_read_input_tokens, second.cache_creation_input_tokens) == (0, 0)
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 1_000
    assert first.input_tokens == second.input_tokens < 100
    changed = client.messages.create(**PLAIN, system=[{**system[0], "text": "Be quick. " * 600}]).usage
    assert changed.cache_read_input_tokens == 0


def test_a_longer_conversation_reads_what_was_cached_before_it(client: anthropic.Anthropic) -> None:
    long = {"role": "user", "content": [{"type": "text", "text": "My roof. " * 600, **CACHED}]}
    first = client.messages.create(**{**PLAIN, "messages": [long]}).usage
    more = [
        long,
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "Go"}]},
    ]
    more[-1]["content"][0] |= CACHED
    second = client.messages.create(**{**PLAIN, "messages": more}).usage
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert 0 < second.cache_creation_input_tokens < 100


# --- streams ---------------------------------------------------------------------------------------------------------
def test_the_sdk_reads_a_stream(fake: FakeAnthropic, client: anthropic.Anthropic) -> None:
    fake.then("reply", thinking="The roof first.", text="On my way.", tool_calls=[("add_step", {"title": "Roof"})])
    with client.messages.stream(**CLEVER) as stream:
        assert "".join(stream.text_stream) == "On my way."
        final = stream.get_final_message()
    thought, text, call = final.content
    assert (thought.thinking, text.text, call.input) == ("The roof first.", "On my way.", {"title": "Roof"})
    assert thought.signature
    assert (final.stop_reason, final.usage.output_tokens) == ("tool_use", 66)


def test_what_it_answers_has_the_types_of_the_sdk(fake: FakeAnthropic, client: anthropic.Anthropic) -> None:
    fake.then("reply", times=2, text="On my way.", tool_calls=[("add_step", {"title": "Roof"})])
    kinds = []
    for answer in [client.messages.create(**CLEVER), *client.messages.create(**CLEVER, stream=True)]:
        type(answer).model_validate(answer.to_dict())
        kinds.append(answer.type)
    assert kinds[1:3] == ["message_start", "content_block_start"]
    assert kinds[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("rst", [False, True])
def test_a_stream_that_is_cut_fails_in_the_client(fake: FakeAnthropic, client: anthropic.Anthropic, rst: bool) -> None:
    fake.then("cut", text="One two three four", after=2, rst=rst)
    texts: list[str] = []
    stream = client.messages.create(**PLAIN, stream=True)
    with pytest.raises(httpx2.TransportError):  # the SDK lets the error of its HTTP library through
        texts.extend(event.delta.text for event in stream if event.type == "content_block_delta")
    assert texts == ["One ", "two "]


def test_a_stream_that_ends_early_ends_without_its_last_events(
    fake: FakeAnthropic, client: anthropic.Anthropic
) -> None:
    fake.then("early", text="One two three four")
    assert [event.type for event in client.messages.create(**PLAIN, stream=True)][-1] == "content_block_delta"


def test_an_error_may_come_within_a_stream(fake: FakeAnthropic, client: anthropic.Anthropic) -> None:
    fake.then("error", text="One two")
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(client.messages.create(**PLAIN, stream=True))
    assert caught.value.body["error"]["type"] == "overloaded_error"


# --- tools and thinking ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("redacted", [False, True])
def test_two_rounds_of_tools_take_the_thinking_back(
    fake: FakeAnthropic, client: anthropic.Anthropic, redacted: bool
) -> None:
    messages: list[Any] = [*ASKED]
    for calls in (2, 1):
        fake.then("reply", tool_calls=[("add_step", {})] * calls, redacted=redacted)
        with client.messages.stream(**{**CLEVER, "messages": messages}) as stream:
            answer = stream.get_final_message()
        assert [block.type for block in answer.content][1:] == ["tool_use"] * calls
        messages += [given_back(answer), results_of(answer)]
    last = client.messages.create(**{**CLEVER, "messages": messages, "tool_choice": {"type": "none"}})
    assert said(last) == "You said: Measure my roof."


@pytest.fixture
def first(fake: FakeAnthropic, client: anthropic.Anthropic) -> Any:
    fake.then("reply", tool_calls=[("add_step", {}), ("add_step", {})])
    return client.messages.create(**CLEVER)


def again(client: anthropic.Anthropic, *messages: Any) -> str:
    return str(refused(client, **{**CLEVER, "messages": [*ASKED, *messages]}).body["error"]["message"])


def test_thinking_must_be_given_back_unchanged(client: anthropic.Anthropic, first: Any) -> None:
    thought, *calls = given_back(first)["content"]
    assert "Expected `thinking`" in again(client, {"role": "assistant", "content": calls}, results_of(first))
    changed = {**thought, "thinking": "Something else."}
    sentence = again(client, {"role": "assistant", "content": [changed, *calls]}, results_of(first))
    assert "cannot be modified" in sentence
    signed = {**thought, "signature": "made up"}
    sentence = again(client, {"role": "assistant", "content": [signed, *calls]}, results_of(first))
    assert "Invalid `signature`" in sentence


def test_results_follow_their_calls_all_in_one_message(client: anthropic.Anthropic, first: Any) -> None:
    answer, results = given_back(first), results_of(first)
    one, other = ({"role": "user", "content": [each]} for each in results["content"])
    late = {"role": "user", "content": [{"type": "text", "text": "Well"}, *results["content"]]}
    assert "found without `tool_result` blocks" in again(client, answer, ASKED[0])
    assert "found without `tool_result` blocks" in again(client, answer, one, other)
    assert "found without `tool_result` blocks" in again(client, answer, late)
    assert "unexpected `tool_use_id`" in again(client, results)
    assert "single result" in again(client, answer, {**results, "content": results["content"] * 2})


def test_words_may_follow_the_results(client: anthropic.Anthropic, first: Any) -> None:
    results = results_of(first)
    results["content"].append({"type": "text", "text": "And?"})
    answer = client.messages.create(**{**CLEVER, "messages": [*ASKED, given_back(first), results]})
    assert said(answer) == "You said: And?"


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"messages": [{"role": "assistant", "content": "Hi"}, *ASKED]}, 'must use the "user" role'),
        ({"messages": [*ASKED, {"role": "assistant", "content": "Hi"}]}, "assistant message prefill"),
        ({"messages": [{"role": "system", "content": "Hi"}, *ASKED]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "user", "content": ""}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages.0.name: Extra inputs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "does not match any of the expected"),
        ({"messages": []}, "at least one message"),
        ({"presence_penalty": 1}, "presence_penalty: Extra inputs are not permitted"),
        ({"max_tokens": 64_001}, "64001 > 64000"),
        ({"temperature": 1.2}, "less than or equal to 1"),
        ({"temperature": 0.5, "top_p": 0.5}, "cannot both be specified"),
        ({"model": OPUS, "temperature": 0.5}, "`temperature` is deprecated"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "must be greater than `thinking.budget_tokens`"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported"),
        ({"model": OPUS, "thinking": {"type": "enabled", "budget_tokens": 1_024}}, "thinking.type.enabled"),
        ({"output_config": {"effort": "low"}}, "effort parameter"),
        ({"tools": [{"type": "function", "function": {"name": "add_step"}}]}, "tools.0.custom.name: Field required"),
        ({"tools": [TOOL, TOOL]}, "must be unique"),
        ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
        ({"system": [{"type": "text", "text": "x", **CACHED}] * 5}, "Found 5"),
        ({"system": [{"type": "text", "text": ""}]}, "must be non-empty"),
    ],
)
def test_what_anthropic_refuses_is_refused(client: anthropic.Anthropic, body: dict[str, Any], sentence: str) -> None:
    error = refused(client, **body)
    assert (error.status_code, error.body["error"]["type"]) == (400, "invalid_request_error")
    assert sentence in error.body["error"]["message"]


def test_temperature_and_thinking_exclude_each_other(client: anthropic.Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    body = {"max_tokens": 2_000, "thinking": thinking}
    assert "may only be set to 1" in refused(client, **body, temperature=0.5).message
    assert client.messages.create(**{**PLAIN, **body}).content[0].type == "thinking"
    assert said(client.messages.create(**PLAIN, extra_body={"temperature": 0.5})) == "You said: Measure my roof."


def test_max_tokens_is_required(fake: FakeAnthropic) -> None:
    headers = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}
    body = {"model": HAIKU, "messages": ASKED}
    answer = requests.post(f"{fake.url}/v1/messages", json=body, headers=headers, timeout=5).json()
    assert answer["error"]["message"] == "max_tokens: Field required"


def test_a_prompt_beyond_the_window_is_refused_with_its_tokens(
    fake: FakeAnthropic, client: anthropic.Anthropic
) -> None:
    fake.models[HAIKU] = Model(window=100)
    long = [{"role": "user", "content": "x" * 1_000}]
    counted = client.messages.count_tokens(model=HAIKU, messages=long).input_tokens
    assert refused(client, messages=long).body["error"]["message"] == (
        f"prompt is too long: {counted} tokens > 100 maximum"
    )


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, "authentication_error", anthropic.AuthenticationError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (413, "request_too_large", anthropic.APIStatusError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (500, "api_error", anthropic.InternalServerError),
        (529, "overloaded_error", anthropic.InternalServerError),
    ],
)
def test_each_status_has_its_type_of_error(
    fake: FakeAnthropic, client: anthropic.Anthropic, status: int, kind: str, error: type[Exception]
) -> None:
    fake.then("status", status=status, headers={"Retry-After": "7"})
    with pytest.raises(error) as caught:
        client.messages.create(**PLAIN)
    assert caught.value.status_code == status  # type: ignore[attr-defined]
    assert caught.value.body["error"]["type"] == kind  # type: ignore[attr-defined]
    assert caught.value.response.headers["retry-after"] == "7"  # type: ignore[attr-defined]


def test_a_model_that_there_is_not_is_not_found(client: anthropic.Anthropic) -> None:
    assert refused(client, model="claude-3-opus").body["error"]["type"] == "not_found_error"


def test_the_list_of_models_is_paged_and_says_when_each_retires(client: anthropic.Anthropic) -> None:
    models = {model.id: model.retires_at for model in client.models.list(limit=1)}
    assert set(models) == {OPUS, HAIKU}
    assert (models[OPUS], str(models[HAIKU])[:10]) == (None, "2027-02-15")
