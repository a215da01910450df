"""OpenAI's Responses API.

Nothing is stored at OpenAI (`store` is false): the reasoning between two tool rounds is given back encrypted. Source:
OpenAI, API reference, "Responses", and the guide "Reasoning models".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from memory.language_models import answers, capabilities, errors
from memory.language_models.answers import Answer
from memory.language_models.contract import CompletionRequest, ModelAccess, ToolRound

ENCRYPTED_REASONING = "reasoning.encrypted_content"
_ENDS = {"response.completed", "response.incomplete", "response.failed", "response.done"}


class Responses:
    """The dialect of the Responses API."""

    path = "/responses"

    def body(self, request: CompletionRequest, access: ModelAccess, *, stream: bool) -> dict[str, Any]:
        """Return the request's body."""
        system = [message["content"] for message in request.messages if message["role"] == "system"]
        body: dict[str, Any] = {
            "model": access.model,
            "input": _input(request),
            "store": False,
            "include": _include(request, access),
        }
        if system:
            body["instructions"] = "\n\n".join(system)
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if (most := capabilities.cap(request.max_tokens, access.known)) is not None:
            body["max_output_tokens"] = most
        if request.reasoning_effort:
            body["reasoning"] = {"effort": request.reasoning_effort}
        if request.tools:
            body["tools"] = [{"type": "function", "strict": False, **tool["function"]} for tool in request.tools]
            body["tool_choice"] = "auto" if request.may_call else "none"
        if stream:
            body["stream"] = True
        return body

    def parse(self, data: Mapping[str, Any]) -> Answer:
        """Return a whole answer."""
        return _answer(data, data["output"])

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return StreamReader()


def _include(request: CompletionRequest, access: ModelAccess) -> list[str]:
    gives_probabilities = not access.known.get(f"{capabilities.OMITS}logprobs")
    wanted = [capabilities.PROBABILITIES] if request.confidence and gives_probabilities else []
    return [ENCRYPTED_REASONING, *wanted]


# --- the request -----------------------------------------------------------------------------------------------------
def _input(request: CompletionRequest) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [dict(message) for message in request.messages if message["role"] != "system"]
    if request.pictures and items:
        parts = [{"type": "input_text", "text": items[-1]["content"]}]
        for picture in request.pictures:
            data = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"
            if picture.is_document:
                parts.append({"type": "input_file", "filename": picture.name, "file_data": data})
            else:
                parts.append({"type": "input_image", "image_url": data})
        items[-1] = {**items[-1], "content": parts}
    for each in request.rounds:
        items += _round(each)
    return items


def _round(round_: ToolRound) -> list[dict[str, Any]]:
    """Return the items of the answer as they came, and the answers to its calls."""
    completion = round_.completion
    if answers.holds_calls(completion, "call_id"):
        items = list(completion.given)
    else:  # another provider's round
        items = [{"role": "assistant", "content": completion.text}] if completion.text else []
        for each in completion.tool_calls:
            items.append({"type": "function_call", "call_id": each.id, "name": each.name, "arguments": each.arguments})
    answered = zip(completion.tool_calls, round_.answers, strict=True)
    return [*items, *({"type": "function_call_output", "call_id": call.id, "output": text} for call, text in answered)]


# --- the answer ------------------------------------------------------------------------------------------------------
def _answer(data: Mapping[str, Any], output: list[Any]) -> Answer:
    """Return the answer in a response and its items. Raises LLMError for a response that failed."""
    if data.get("status") == "failed" or data.get("error"):
        raise errors.in_answer(data.get("error") or {})
    answer = Answer(finish=_finish(data))
    probabilities: list[Any] = []
    given = []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in item.get("content") or ():
                if part.get("type") == "output_text":
                    answer.text += answers.text_of(part.get("text"))
                    probabilities += part.get("logprobs") or []
                elif part.get("type") == "refusal":
                    answer.refusal += answers.text_of(part.get("refusal"))
        elif kind == "function_call" and len(answer.calls) < answers.MOST_CALLS:
            found = answers.call(item.get("call_id"), item.get("name"), item.get("arguments"), len(answer.calls) + 1)
            if found is None:
                continue
            answer.calls.append(found)
            item = {**item, "call_id": found.id, "arguments": found.arguments}
        given.append(item)
    usage = data.get("usage")
    answer.tokens_in = answers.count(usage, "input_tokens")
    answer.tokens_out = answers.count(usage, "output_tokens")
    answer.tokens_cached = answers.count(usage, "input_tokens_details", "cached_tokens")
    answer.model = data["model"] if isinstance(data.get("model"), str) else ""
    answer.probabilities, answer.given = probabilities, given
    return answer


def _finish(data: Mapping[str, Any]) -> str:
    if data.get("status") != "incomplete":
        return answers.STOP
    details = data.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else ""
    return answers.FILTERED if reason == "content_filter" else answers.LENGTH


class StreamReader:
    """Reads a streamed response: its text by deltas, everything else from its last event, which has all of it."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._last: Mapping[str, Any] | None = None

    def read(self, event: Mapping[str, Any]) -> str:
        """Return the text in the event."""
        kind = event.get("type")
        if kind == "response.output_text.delta":
            return answers.text_of(event.get("delta"))
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._items.append(event["item"])
        elif kind == "error":
            raise errors.in_answer(dict(event, type=event.get("code")))
        elif kind in _ENDS and isinstance(event.get("response"), dict):
            self._last = event["response"]
        return ""

    def answer(self) -> Answer:
        """Return the whole answer; without its last event it is not complete."""
        if self._last is None:
            return Answer()
        return _answer(self._last, self._last.get("output") or self._items)
