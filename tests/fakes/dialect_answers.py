"""The changes that dialects make to an answer: each is given the fake, the request and the completion to change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.fakes.dialect_refusals import signature_of

if TYPE_CHECKING:
    from tests.fakes.dialects import FakeDialects

Body, Answer = Mapping[str, Any], dict[str, Any]
UPSTREAM_ERROR = {"code": 502, "message": "Upstream error: the provider went away.", "metadata": {}}
# Dialects that write marks into the text, which a stream splits.
WRITTEN = ("think_tags", "thought_tags", "stray_think_end", "think_only", "harmony", "call_in_tags", "call_in_json")
WRITTEN += ("call_in_function", "call_in_xml", "call_in_brackets", "call_in_python_tag")


def message_of(answer: Answer) -> dict[str, Any]:
    """Return the message of the only choice."""
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def half(text: str | None) -> str:
    """Return the first half of a text."""
    return (text or "")[: max(len(text or "") // 2, 1)]


def before_text(begin: str, between: str, end: str = "") -> Callable[[FakeDialects, Body, Answer], None]:
    """Return a change that puts the reasoning before the text."""

    def change(fake: FakeDialects, body: Body, answer: Answer) -> None:
        message = message_of(answer)
        message["content"] = f"{begin}{fake.reasoning}{between}{message['content'] or ''}{end}"

    return change


def think_only(fake: FakeDialects, body: Body, answer: Answer) -> None:
    answer["choices"][0]["message"] = {"role": "assistant", "content": f"<think>{fake.reasoning}", "refusal": None}
    answer["choices"][0]["finish_reason"] = "length"


def reasoning_back(fake: FakeDialects, body: Body, answer: Answer) -> None:
    message_of(answer)["reasoning_content"] = fake.reasoning


def signature_back(fake: FakeDialects, body: Body, answer: Answer) -> None:
    for call in message_of(answer).get("tool_calls") or ():
        call["extra_content"] = {"google": {"thought_signature": signature_of(call)}}


def finish_error(fake: FakeDialects, body: Body, answer: Answer) -> None:
    message_of(answer)["content"] = half(message_of(answer)["content"])
    answer["choices"][0]["finish_reason"] = "error"


def error_in_choice(fake: FakeDialects, body: Body, answer: Answer) -> None:
    finish_error(fake, body, answer)
    answer["choices"][0]["error"] = UPSTREAM_ERROR


def refusal(fake: FakeDialects, body: Body, answer: Answer) -> None:
    words = message_of(answer)["refusal"] or "I can't help with that."
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": words}


def content_parts(fake: FakeDialects, body: Body, answer: Answer) -> None:
    message = message_of(answer)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": fake.reasoning}]}
    if message["content"]:
        message["content"] = [thought, {"type": "text", "text": message["content"]}]


def no_call_ids(fake: FakeDialects, body: Body, answer: Answer) -> None:
    for call in message_of(answer).get("tool_calls") or ():
        del call["id"]


def empty_call_ids(fake: FakeDialects, body: Body, answer: Answer) -> None:
    for call in message_of(answer).get("tool_calls") or ():
        call["id"] = ""


def arguments_object(fake: FakeDialects, body: Body, answer: Answer) -> None:
    for call in message_of(answer).get("tool_calls") or ():
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])


def cut_at_limit(fake: FakeDialects, body: Body, answer: Answer) -> None:
    message, cap = message_of(answer), body.get("max_completion_tokens") or body.get("max_tokens")
    text = message["content"] or ""
    short = text[: cap * 4] if cap and cap * 4 < len(text) else half(text)
    message["content"], answer["choices"][0]["finish_reason"] = short, "length"


# --- tool calls as text ----------------------------------------------------------------------------------------------
Calls = Sequence[Mapping[str, Any]]


def tags_text(calls: Calls) -> str:
    """Return the form of Hermes and Qwen."""
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def json_text(calls: Calls) -> str:
    """Return the form of models that were asked for tools and know none."""
    return "\n".join(f"```json\n{json.dumps(call, indent=2)}\n```" for call in calls)


def function_text(calls: Calls) -> str:
    """Return the form of Llama 3.1."""
    return "\n".join(f"<function={call['name']}>{json.dumps(call['arguments'])}</function>" for call in calls)


def xml_text(calls: Calls) -> str:
    """Return the form of Qwen's coders."""
    texts = []
    for call in calls:
        given = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call["arguments"].items())
        texts.append(f"<tool_call>\n<function={call['name']}>\n{given}</function>\n</tool_call>")
    return "\n".join(texts)


def brackets_text(calls: Calls) -> str:
    """Return the form of Mistral."""
    return f"[TOOL_CALLS]{json.dumps(list(calls))}"


def python_tag_text(calls: Calls) -> str:
    """Return the form of Llama 3.1's built-in tools: one mark before all calls."""
    texts = [json.dumps({"name": call["name"], "parameters": call["arguments"]}) for call in calls]
    return f"<|python_tag|>{'; '.join(texts)}"


def written(text_of_calls: Callable[[Calls], str]) -> Callable[[FakeDialects, Body, Answer], None]:
    """Return a change that writes the tool calls into the text."""

    def change(fake: FakeDialects, body: Body, answer: Answer) -> None:
        message = message_of(answer)
        called = message.pop("tool_calls", None)
        if not called:
            return
        functions = [call["function"] for call in called]
        calls = [{"name": each["name"], "arguments": json.loads(each["arguments"])} for each in functions]
        message["content"] = "\n".join(filter(None, [message["content"], text_of_calls(calls)]))
        answer["choices"][0]["finish_reason"] = "stop"

    return change


HARMONY = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>", "<|return|>")
CHANGES: dict[str, Callable[[FakeDialects, Body, Answer], None]] = {
    "think_tags": before_text("<think>\n", "\n</think>\n\n"),
    "thought_tags": before_text("<thought>\n", "\n</thought>\n"),
    "stray_think_end": before_text("", "\n</think>\n\n"),
    "think_only": think_only,
    "harmony": before_text(*HARMONY),
    "reasoning_back": reasoning_back,
    "signature_back": signature_back,
    "finish_error": finish_error,
    "error_in_choice": error_in_choice,
    "refusal": refusal,
    "content_parts": content_parts,
    "no_call_ids": no_call_ids,
    "empty_call_ids": empty_call_ids,
    "arguments_object": arguments_object,
    "cut_at_limit": cut_at_limit,
    "call_in_tags": written(tags_text),
    "call_in_json": written(json_text),
    "call_in_function": written(function_text),
    "call_in_xml": written(xml_text),
    "call_in_brackets": written(brackets_text),
    "call_in_python_tag": written(python_tag_text),
}
