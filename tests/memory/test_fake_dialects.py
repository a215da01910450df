"""The fake of servers with dialects does, whole and streamed, what each dialect's description says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.fakes.dialects import Dialect, FakeDialects, tokens_of
from tests.fakes.openai_models import Model

ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Measure my roof."}]
TOOL = {"type": "function", "function": {"name": "add_step", "parameters": {"type": "object"}}}
CALLS = [("add_step", {"title": "Roof"}), ("add_step", {"title": "Gutter"})]
REASONING = "They want their roof measured."
WHOLE_AND_STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def fake() -> Iterator[FakeDialects]:
    with FakeDialects() as server:
        yield server


class Asking:
    """A client that puts an answer together in the simplest way, as most programs do."""

    def __init__(self, fake: FakeDialects) -> None:
        self.sdk = openai.OpenAI(api_key="sk-1", base_url=fake.base_url, max_retries=0, timeout=5)

    def ask(self, *, streamed: bool, **body: Any) -> dict[str, Any]:
        body = {"model": "m", "messages": ASKED, **body}
        if not streamed:
            choice = self.sdk.chat.completions.create(**body).choices[0]
            return {**choice.message.to_dict(warnings=False), "finish_reason": choice.finish_reason}
        answer: dict[str, Any] = {"content": "", "tool_calls": {}}
        for chunk in self.sdk.chat.completions.create(**body, stream=True):
            add(answer, chunk.choices[0].to_dict(warnings=False) if chunk.choices else {"delta": {}})
        return {**answer, "tool_calls": list(answer["tool_calls"].values())}

    def refused(self, *, streamed: bool = False, **body: Any) -> Any:
        with pytest.raises(openai.APIError) as caught:
            self.ask(streamed=streamed, **body)
        return caught.value


def add(answer: dict[str, Any], choice: dict[str, Any]) -> None:
    answer["finish_reason"] = choice.get("finish_reason") or answer.get("finish_reason")
    for name in ("content", "refusal", "reasoning_content"):
        piece = choice["delta"].get(name)
        if piece:
            answer[name] = (answer.get(name) or type(piece)()) + piece
    for call in choice["delta"].get("tool_calls") or ():
        kept = answer["tool_calls"].setdefault(call["index"], call)
        if kept is not call:
            kept["function"]["arguments"] += call["function"]["arguments"]


@pytest.fixture
def client(fake: FakeDialects) -> Asking:
    return Asking(fake)


# --- without a dialect -----------------------------------------------------------------------------------------------
@WHOLE_AND_STREAMED
def test_without_a_dialect_it_answers_as_openai_does(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    answer = client.ask(streamed=streamed)
    assert (answer["content"], answer["finish_reason"]) == ("You said: Measure my roof.", "stop")
    fake.then("reply", tool_calls=CALLS)
    called = client.ask(streamed=streamed, tools=[TOOL])["tool_calls"]
    assert [call["id"] for call in called] == ["call_2_0", "call_2_1"]


def test_it_takes_dialects_by_name_and_several_at_once(fake: FakeDialects) -> None:
    fake.dialect = "think_tags"
    assert fake.dialects == {Dialect.THINK_TAGS}
    fake.dialects = {Dialect.THINK_TAGS, "no_tools"}
    assert fake.speaks(Dialect.NO_TOOLS)
    with pytest.raises(ValueError, match="klingon"):
        fake.dialect = "klingon"


def test_each_dialect_says_what_it_does() -> None:
    assert all(dialect.description for dialect in Dialect)


# --- refusals --------------------------------------------------------------------------------------------------------
@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("dialect", "body", "status", "param"),
    [
        (Dialect.TOOLS_NEED_NO_EFFORT, {"tools": [TOOL]}, 400, "reasoning_effort"),
        (Dialect.RESPONSES_ONLY, {}, 404, "model"),
        (Dialect.REASONING_PARAMETERS, {"max_tokens": 100}, 400, "max_tokens"),
        (Dialect.REASONING_PARAMETERS, {"temperature": 0.3}, 400, "temperature"),
        (Dialect.REASONING_PARAMETERS, {"logprobs": True}, 403, "logprobs"),
        (Dialect.LOGPROBS_FORBIDDEN, {"logprobs": True}, 403, None),
        (Dialect.NO_TOOLS, {"tools": [TOOL]}, 400, None),
        (Dialect.LONG_RETRY_AFTER, {}, 429, None),
    ],
)
def test_it_refuses_what_its_server_refuses(
    fake: FakeDialects,
    client: Asking,
    dialect: Dialect,
    body: dict[str, Any],
    status: int,
    param: str | None,
    streamed: bool,
) -> None:
    fake.dialect = dialect
    error = client.refused(streamed=streamed, **body)
    assert (error.status_code, error.param) == (status, param)
    assert fake.requests[0].problem


def test_tools_are_taken_without_effort(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.TOOLS_NEED_NO_EFFORT
    assert client.ask(streamed=False, tools=[TOOL], reasoning_effort="none")["content"]
    assert client.ask(streamed=False)["content"]


def test_a_model_of_the_responses_api_alone_is_there(fake: FakeDialects, client: Asking) -> None:
    with pytest.raises(openai.NotFoundError):
        client.sdk.responses.create(model="m", input="Hi")
    fake.dialect = Dialect.RESPONSES_ONLY
    assert client.sdk.responses.create(model="m", input="Hi").output_text == "You said: Hi"


def test_what_a_reasoning_model_has_is_taken(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.REASONING_PARAMETERS
    assert client.ask(streamed=False, temperature=1, max_completion_tokens=100)["content"]


def test_the_time_to_wait_is_hours(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.LONG_RETRY_AFTER
    assert client.refused().response.headers["retry-after"] == "7200"


@pytest.mark.parametrize(("dialect", "status"), [(Dialect.NO_STREAM_OPTIONS, 400), (Dialect.STREAM_OPTIONS_422, 422)])
def test_stream_options_are_refused(fake: FakeDialects, client: Asking, dialect: Dialect, status: int) -> None:
    fake.dialect = dialect
    error = client.refused(streamed=True, stream_options={"include_usage": True})
    assert (error.status_code, "stream_options" in str(error.body)) == (status, True)
    assert client.ask(streamed=True)["content"] == "You said: Measure my roof."


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "Hi"} for role in roles]


@pytest.mark.parametrize(
    ("roles", "taken"),
    [
        (("user",), True),
        (("system", "user", "assistant", "user"), True),
        (("system", "user", "user"), False),
        (("system", "assistant", "user"), False),
        (("system", "system", "user"), False),
        (("user", "system", "user"), False),
        (("user", "assistant"), False),
    ],
)
def test_a_strict_template_wants_roles_that_alternate(
    fake: FakeDialects, client: Asking, roles: tuple[str, ...], taken: bool
) -> None:
    fake.dialect = Dialect.STRICT_TEMPLATE
    if taken:
        assert client.ask(streamed=False, messages=turns(*roles))["content"] == "You said: Hi"
    else:
        error = client.refused(messages=turns(*roles))
        assert "must alternate" in error.message
        assert (error.status_code, error.param, error.body["code"]) == (400, None, 400)


def test_a_strict_template_takes_rounds_of_tools(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.STRICT_TEMPLATE
    assert client.ask(streamed=False, messages=[*ASKED, *rounds(client, fake)], tools=[TOOL])["content"]


def test_a_template_without_a_system_role_refuses_it(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.NO_SYSTEM_ROLE
    error = client.refused()
    assert (error.status_code, error.body["message"]) == (400, "System role not supported")
    assert client.ask(streamed=False, messages=turns("user"))["content"] == "You said: Hi"


def test_an_api_version_must_be_in_the_url(fake: FakeDialects) -> None:
    fake.dialect, fake.api_key = Dialect.API_VERSION, "key-1"
    for headers in ({"api-key": "key-1"}, {"Authorization": "Bearer key-1"}):
        for query, status in (("?api-version=2026-05-01", 200), ("", 404)):
            url = f"{fake.base_url}/chat/completions{query}"
            body = {"model": "m", "messages": ASKED}
            assert requests.post(url, json=body, headers=headers, timeout=5).status_code == status


def test_ollama_gives_its_errors_as_a_bare_string(fake: FakeDialects, client: Asking) -> None:
    fake.dialect, fake.models = Dialect.OLLAMA, {"llama2": Model()}
    unknown, toolless = client.refused(model="qwen3"), client.refused(model="llama2", tools=[TOOL])
    assert (unknown.status_code, unknown.response.json()) == (404, {"error": "model 'qwen3' not found"})
    assert toolless.response.json() == {"error": "registry.ollama.ai/library/llama2 does not support tools"}


# --- windows ---------------------------------------------------------------------------------------------------------
@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("dialect", "code", "words"),
    [
        (Dialect.SMALL_WINDOW, "context_length_exceeded", "resulted in"),
        (Dialect.LLAMA_CPP_WINDOW, 400, "exceed_context_size_error"),
        (Dialect.VLLM_WINDOW, 400, "in the completion"),
    ],
)
def test_a_long_prompt_is_refused(
    fake: FakeDialects, client: Asking, dialect: Dialect, code: Any, words: str, streamed: bool
) -> None:
    fake.dialect, fake.window = dialect, 100
    error = client.refused(streamed=streamed, messages=[{"role": "user", "content": "roof " * 100}])
    assert (error.status_code, error.body["code"], words in str(error.body)) == (400, code, True)
    assert client.ask(streamed=streamed)["content"]


def test_llama_cpp_says_its_counts_and_vllm_counts_the_cap(fake: FakeDialects, client: Asking) -> None:
    fake.dialect, fake.window = Dialect.LLAMA_CPP_WINDOW, 100
    long = [{"role": "user", "content": "roof " * 100}]
    error = client.refused(messages=long)
    assert (error.body["n_ctx"], error.body["n_prompt_tokens"]) == (100, fake.prompt_tokens({"messages": long}))
    fake.dialect = Dialect.VLLM_WINDOW
    assert "100 in the completion" in client.refused(max_tokens=100).message
    assert client.ask(streamed=False, max_tokens=50)["content"]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("Please measure my roof tomorrow. " * 10, 70, 90),
        ("నా పైకప్పును కొలవండి " * 10, 180, 300),
        ("iVBORw0KGgoAAAANSUhEUgAA" * 20, 300, 400),
    ],
    ids=["English", "Telugu", "base64"],
)
def test_its_model_counts_other_scripts_and_base64_as_many_tokens(text: str, least: int, most: int) -> None:
    assert least <= tokens_of(text) <= most


# --- answers ---------------------------------------------------------------------------------------------------------
@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("dialect", "content"),
    [
        (Dialect.THINK_TAGS, f"<think>\n{REASONING}\n</think>\n\nHello!"),
        (Dialect.THOUGHT_TAGS, f"<thought>\n{REASONING}\n</thought>\nHello!"),
        (Dialect.STRAY_THINK_END, f"{REASONING}\n</think>\n\nHello!"),
        (Dialect.THINK_ONLY, f"<think>{REASONING}"),
        (
            Dialect.HARMONY,
            f"<|channel|>analysis<|message|>{REASONING}<|end|><|start|>assistant<|channel|>final<|message|>Hello!"
            "<|return|>",
        ),
    ],
)
def test_reasoning_is_written_into_the_text(
    fake: FakeDialects, client: Asking, dialect: Dialect, content: str, streamed: bool
) -> None:
    fake.dialect = dialect
    fake.then("reply", text="Hello!")
    assert client.ask(streamed=streamed)["content"] == content


def test_tags_are_split_over_the_pieces_of_a_stream(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.THINK_TAGS
    chunks = client.sdk.chat.completions.create(model="m", messages=ASKED, stream=True)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "think" in "".join(texts)
    assert not any("think" in text for text in texts)


@WHOLE_AND_STREAMED
@pytest.mark.parametrize(
    ("dialect", "begin"),
    [
        (Dialect.CALL_IN_TAGS, '<tool_call>\n{"name": "add_step", "arguments": {"title": "Roof"}}\n</tool_call>'),
        (Dialect.CALL_IN_JSON, '```json\n{\n  "name": "add_step",'),
        (Dialect.CALL_IN_FUNCTION, '<function=add_step>{"title": "Roof"}</function>'),
        (Dialect.CALL_IN_XML, "<tool_call>\n<function=add_step>\n<parameter=title>\nRoof\n</parameter>"),
        (Dialect.CALL_IN_BRACKETS, '[TOOL_CALLS][{"name": "add_step", "arguments": {"title": "Roof"}},'),
        (Dialect.CALL_IN_PYTHON_TAG, '<|python_tag|>{"name": "add_step", "parameters": {"title": "Roof"}}'),
    ],
)
def test_tool_calls_are_written_into_the_text(
    fake: FakeDialects, client: Asking, dialect: Dialect, begin: str, streamed: bool
) -> None:
    fake.dialect = dialect
    fake.then("reply", tool_calls=CALLS)
    answer = client.ask(streamed=streamed, tools=[TOOL])
    assert answer["content"].startswith(begin)
    assert (answer["finish_reason"], answer.get("tool_calls") or []) == ("stop", [])
    assert client.ask(streamed=streamed, tools=[TOOL])["content"] == "You said: Measure my roof."


@WHOLE_AND_STREAMED
def test_a_refusal_has_no_content(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.REFUSAL
    answer = client.ask(streamed=streamed)
    assert (answer["content"] or None, answer["refusal"]) == (None, "I can't help with that.")


@WHOLE_AND_STREAMED
def test_content_is_a_list_of_parts(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.CONTENT_PARTS
    content = client.ask(streamed=streamed)["content"]
    assert content[0] == {"type": "thinking", "thinking": [{"type": "text", "text": REASONING}]}
    assert "".join(part["text"] for part in content[1:]) == "You said: Measure my roof."


@WHOLE_AND_STREAMED
def test_an_answer_that_fails_half_way_ends_with_error(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    for dialect in (Dialect.FINISH_ERROR, Dialect.ERROR_IN_CHOICE):
        fake.dialect = dialect
        answer = client.ask(streamed=streamed)
        assert (answer["content"], answer["finish_reason"]) == ("You said: Mea", "error")


@WHOLE_AND_STREAMED
def test_an_error_in_a_choice_or_in_the_body_says_its_code(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    body = {"model": "m", "messages": ASKED, "stream": streamed}
    for dialect in (Dialect.ERROR_IN_CHOICE, Dialect.ERROR_IN_BODY):
        fake.dialect = dialect
        answer = requests.post(f"{fake.base_url}/chat/completions", json=body, timeout=5)
        assert (answer.status_code, '"code": 502' in answer.text) == (200, True)


def test_an_error_in_a_stream_comes_after_half_a_text(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.ERROR_IN_BODY
    stream = client.sdk.chat.completions.create(model="m", messages=ASKED, stream=True)
    texts: list[str] = []
    with pytest.raises(openai.APIError):
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(texts) == "You said: "


@WHOLE_AND_STREAMED
def test_a_small_cap_is_spent_on_reasoning(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.CAP_SPENT
    answer = client.ask(streamed=streamed, max_tokens=500)
    assert (answer["content"], answer["finish_reason"]) == ("", "length")
    assert client.ask(streamed=streamed, max_tokens=2_000)["content"] == "You said: Measure my roof."


@WHOLE_AND_STREAMED
def test_a_text_is_cut_in_mid_sentence(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.CUT_AT_LIMIT
    answer = client.ask(streamed=streamed, max_tokens=3)
    assert (answer["content"], answer["finish_reason"]) == ("You said: Me", "length")


# --- tool calls ------------------------------------------------------------------------------------------------------
def rounds(client: Asking, fake: FakeDialects, *, streamed: bool = False) -> list[dict[str, Any]]:
    """One round of tools, the assistant's message as it came."""
    fake.then("reply", tool_calls=CALLS[:1])
    message = client.ask(streamed=streamed, tools=[TOOL])
    message.pop("finish_reason")
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Added."}
    return [{"role": "assistant", **message}, result]


@WHOLE_AND_STREAMED
@pytest.mark.parametrize(("dialect", "ids"), [(Dialect.NO_CALL_IDS, [None]), (Dialect.EMPTY_CALL_IDS, [""])])
def test_calls_come_without_an_id(
    fake: FakeDialects, client: Asking, dialect: Dialect, ids: list[str | None], streamed: bool
) -> None:
    fake.dialect = dialect
    fake.then("reply", tool_calls=CALLS[:1])
    assert [call.get("id") for call in client.ask(streamed=streamed, tools=[TOOL])["tool_calls"]] == ids


@WHOLE_AND_STREAMED
def test_arguments_come_as_an_object(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.ARGUMENTS_OBJECT
    fake.then("reply", tool_calls=CALLS[:1])
    call = client.ask(streamed=streamed, tools=[TOOL])["tool_calls"][0]
    assert call["function"]["arguments"] == {"title": "Roof"}


def test_streamed_calls_are_all_at_index_0(fake: FakeDialects, client: Asking) -> None:
    fake.dialect = Dialect.ONE_INDEX
    fake.then("reply", tool_calls=CALLS)
    chunks = client.sdk.chat.completions.create(model="m", messages=ASKED, tools=[TOOL], stream=True)
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert {piece.index for piece in pieces} == {0}
    assert [piece.id for piece in pieces if piece.id] == ["call_2_0", "call_2_1"]
    assert "".join(piece.function.arguments for piece in pieces) == '{"title": "Roof"}{"title": "Gutter"}'


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("dialect", [Dialect.REASONING_BACK, Dialect.SIGNATURE_BACK])
def test_the_second_round_wants_back_what_the_first_gave(
    fake: FakeDialects, client: Asking, dialect: Dialect, streamed: bool
) -> None:
    fake.dialect = dialect
    given = rounds(client, fake, streamed=streamed)
    assert client.ask(streamed=streamed, messages=[*ASKED, *given], tools=[TOOL])["content"]
    call = {name: value for name, value in given[0]["tool_calls"][0].items() if name != "extra_content"}
    bare = {"role": "assistant", "content": None, "tool_calls": [call]}
    error = client.refused(streamed=streamed, messages=[*ASKED, bare, given[1]], tools=[TOOL])
    assert error.status_code == 400


def test_gemini_gives_its_errors_in_a_list(fake: FakeDialects, client: Asking) -> None:
    given = rounds(client, fake)
    fake.dialect = Dialect.SIGNATURE_BACK
    error = client.refused(messages=[*ASKED, *given], tools=[TOOL])
    assert error.response.json()[0]["error"]["status"] == "INVALID_ARGUMENT"


@WHOLE_AND_STREAMED
def test_a_malformed_call_is_refused_by_the_server_itself(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.TOOL_USE_FAILED
    fake.then("reply", tool_calls=CALLS[:1])
    error = client.refused(streamed=streamed, tools=[TOOL])
    assert (error.body["code"], error.body["failed_generation"]) == (
        "tool_use_failed",
        '<function=add_step>{"title": "Roof"}</function>',
    )
    assert client.ask(streamed=streamed, tools=[TOOL])["content"] == "You said: Measure my roof."


@WHOLE_AND_STREAMED
def test_a_model_may_call_tools_that_it_must_not_call(fake: FakeDialects, client: Asking, streamed: bool) -> None:
    fake.dialect = Dialect.IGNORES_TOOL_CHOICE
    for _ in range(3):
        called = client.ask(streamed=streamed, tools=[TOOL], tool_choice="none")["tool_calls"]
        assert [call["function"]["name"] for call in called] == ["add_step"]
    assert client.ask(streamed=streamed)["content"] == "You said: Measure my roof."


def test_several_dialects_are_spoken_at_once(fake: FakeDialects, client: Asking) -> None:
    fake.dialects = {Dialect.THINK_TAGS, Dialect.STRICT_TEMPLATE, Dialect.CALL_IN_TAGS}
    fake.then("reply", tool_calls=CALLS[:1])
    content = client.ask(streamed=True, tools=[TOOL])["content"]
    assert content.startswith("<think>")
    assert json.dumps({"title": "Roof"}) in content
    assert "must alternate" in client.refused(messages=turns("user", "user")).message
