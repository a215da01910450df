"""Anthropic's Messages API.

The system part is cached by the provider: it is the same from turn to turn. Thinking blocks are given back unchanged
between two tool rounds. Source: Anthropic, API reference, "Messages", and the guides "Prompt caching" and "Extended
thinking".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from memory.language_models import answers, capabilities, errors
from memory.language_models.answers import Answer
from memory.language_models.contract import CompletionRequest, ModelAccess, ToolRound

LONGEST_ANSWER = 8_192  # tokens, where the assistant names none: the API wants a number
NO_EFFORT = "none"
_FINISH = {
    "end_turn": answers.STOP,
    "stop_sequence": answers.STOP,
    "tool_use": answers.STOP,
    "pause_turn": answers.STOP,
    "max_tokens": answers.LENGTH,
    "model_context_window_exceeded": answers.LENGTH,
    "refusal": answers.REFUSED,
}


class AnthropicMessages:
    """The dialect of the Messages API."""

    path = "/v1/messages"

    def body(self, request: CompletionRequest, access: ModelAccess, *, stream: bool) -> dict[str, Any]:
        """Return the request's body."""
        most = capabilities.cap(request.max_tokens, access.known)
        system = "\n\n".join(message["content"] for message in request.messages if message["role"] == "system")
        body: dict[str, Any] = {
            "model": access.model,
            "max_tokens": most if most is not None else int(access.known.get(capabilities.MOST_OUTPUT, LONGEST_ANSWER)),
            "messages": _messages(request),
        }
        if system:
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if request.reasoning_effort and request.reasoning_effort != NO_EFFORT:
            body["thinking"] = {"type": "adaptive"}
            body["output_config"] = {"effort": request.reasoning_effort}
        elif request.temperature is not None:  # the API takes no temperature beside thinking
            body["temperature"] = min(request.temperature, 1.0)
        if request.tools:
            body["tools"] = [_tool(tool["function"]) for tool in request.tools]
            body["tool_choice"] = {"type": "auto" if request.may_call else "none"}
        if stream:
            body["stream"] = True
        return body

    def parse(self, data: Mapping[str, Any]) -> Answer:
        """Return a whole answer."""
        if data.get("type") == "error":
            raise errors.in_answer(data)
        usage = data.get("usage")
        return _answer(data["content"], data.get("stop_reason"), data.get("model"), usage or {})

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return StreamReader()


# --- the request -----------------------------------------------------------------------------------------------------
def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function["parameters"],
    }


def _messages(request: CompletionRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [dict(message) for message in request.messages if message["role"] != "system"]
    if request.pictures and messages:
        parts: list[dict[str, Any]] = []
        for picture in request.pictures:
            data = base64.b64encode(picture.data).decode()
            source = {"type": "base64", "media_type": picture.media_type, "data": data}
            parts.append({"type": "document" if picture.is_document else "image", "source": source})
        parts.append({"type": "text", "text": messages[-1]["content"]})
        messages[-1] = {**messages[-1], "content": parts}
    for each in request.rounds:
        messages += _round(each)
    return messages


def _round(round_: ToolRound) -> list[dict[str, Any]]:
    """Return the answer's blocks as they came, and the answers to its calls in one message of the user."""
    completion = round_.completion
    if answers.holds_calls(completion, "id"):
        blocks = list(completion.given)
    else:  # another provider's round
        blocks = [{"type": "text", "text": completion.text}] if completion.text else []
        for each in completion.tool_calls:
            given = _object(each.arguments)
            blocks.append({"type": "tool_use", "id": each.id, "name": each.name, "input": given})
    results = [
        {"type": "tool_result", "tool_use_id": each.id, "content": answer}
        for each, answer in zip(completion.tool_calls, round_.answers, strict=True)
    ]
    return [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]


def _object(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# --- the answer ------------------------------------------------------------------------------------------------------
def _answer(blocks: list[Any], reason: Any, model: Any, usage: Mapping[str, Any]) -> Answer:
    answer = Answer(finish=_FINISH.get(str(reason), answers.STOP) if reason else "")
    given = []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            answer.text += answers.text_of(block.get("text"))
            if not answers.text_of(block.get("text")):
                continue  # the API takes no empty block back
        elif kind == "tool_use" and len(answer.calls) < answers.MOST_CALLS:
            found = answers.call(block.get("id"), block.get("name"), block.get("input"), len(answer.calls) + 1)
            if found is None:
                continue
            answer.calls.append(found)
            block = {**block, "id": found.id, "input": _object(found.arguments)}
        given.append(block)
    if answer.finish == answers.REFUSED:
        answer.refusal, answer.text = answer.text, ""
    read = answers.count(usage, "cache_read_input_tokens")
    written = answers.count(usage, "cache_creation_input_tokens")
    answer.tokens_in = answers.count(usage, "input_tokens") + read + written
    answer.tokens_out = answers.count(usage, "output_tokens")
    answer.tokens_cached = read
    answer.model = model if isinstance(model, str) else ""
    answer.given = given
    return answer


class StreamReader:
    """Reads a streamed message: blocks that begin, grow by deltas, and stop."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._model: Any = ""
        self._reason: Any = None
        self._is_over = False
        self._length = 0

    def read(self, event: Mapping[str, Any]) -> str:
        """Return the text in the event."""
        kind = event.get("type")
        if kind == "error":
            raise errors.in_answer(event)
        if kind == "message_start" and isinstance(event.get("message"), dict):
            self._model = event["message"].get("model")
            self._usage |= event["message"].get("usage") or {}
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            block = dict(event["content_block"])
            if len(self._blocks) < 2 * answers.MOST_CALLS:
                self._blocks[int(event.get("index", len(self._blocks)))] = block
            return answers.text_of(block.get("text")) if block.get("type") == "text" else ""
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            return self._grow(int(event.get("index", -1)), event["delta"])
        elif kind == "message_delta":
            self._reason = (event.get("delta") or {}).get("stop_reason") or self._reason
            self._usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        elif kind == "message_stop":
            self._is_over = True
        return ""

    def _grow(self, index: int, delta: Mapping[str, Any]) -> str:
        block, kind = self._blocks.get(index), delta.get("type")
        if block is None or self._length > answers.LONGEST_TEXT:
            return ""
        if kind == "input_json_delta":
            piece = answers.text_of(delta.get("partial_json"))
            self._inputs[index] = self._inputs.get(index, "") + piece
        else:
            name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(str(kind))
            piece = answers.text_of(delta.get(name)) if name else ""
            if name:
                block[name] = answers.text_of(block.get(name)) + piece
        self._length += len(piece)
        return piece if kind == "text_delta" else ""

    def answer(self) -> Answer:
        """Return the whole answer; without its end it is not complete."""
        blocks = [
            {**block, "input": _object(self._inputs[index])} if index in self._inputs else block
            for index, block in sorted(self._blocks.items())
        ]
        answer = _answer(blocks, self._reason, self._model, self._usage)
        answer.finish = answer.finish if self._is_over else ""
        return answer
