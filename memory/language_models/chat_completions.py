"""Chat completions of OpenAI and of the many servers that are compatible with them.

Source: OpenAI, API reference, "Chat Completions". The parts that differ between servers are named where they are read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from memory.language_models import answers, capabilities
from memory.language_models.answers import Answer
from memory.language_models.contract import CompletionRequest, ModelAccess, ToolRound

_FINISH = {"length": answers.LENGTH, "content_filter": answers.FILTERED, "error": answers.ERROR}
# Parts of an assistant's message that some servers want back in the next round: DeepSeek, OpenRouter, Gemini.
_GIVEN_BACK = ("reasoning_content", "reasoning", "reasoning_details", "extra_content")


class ChatCompletions:
    """The dialect of chat completions."""

    path = "/chat/completions"

    def body(self, request: CompletionRequest, access: ModelAccess, *, stream: bool) -> dict[str, Any]:
        """Return the request's body."""
        body: dict[str, Any] = {"model": access.model, "messages": _messages(request, access)}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if (most := capabilities.cap(request.max_tokens, access.known)) is not None:
            body["max_tokens"] = most
        if request.reasoning_effort:
            body["reasoning_effort"] = request.reasoning_effort
        if request.tools:
            body |= {"tools": list(request.tools), "tool_choice": "auto" if request.may_call else "none"}
        if request.confidence:
            body["logprobs"] = True
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def parse(self, data: Mapping[str, Any]) -> Answer:
        """Return a whole answer."""
        choice = data["choices"][0]
        message = choice["message"]
        answer = Answer(
            text=answers.text_of(message.get("content")),
            refusal=message.get("refusal") if isinstance(message.get("refusal"), str) else "",
            finish=answers.ERROR if choice.get("error") else _finish(choice.get("finish_reason") or "stop"),
            probabilities=_probabilities(choice),
        )
        calls = message.get("tool_calls")
        raw = [each for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
        _take_calls(answer, raw[: answers.MOST_CALLS], {name: message.get(name) for name in _GIVEN_BACK})
        _take_usage(answer, data)
        return answer

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return StreamReader()


# --- the request -----------------------------------------------------------------------------------------------------
def _messages(request: CompletionRequest, access: ModelAccess) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [dict(message) for message in request.messages]
    if access.known.get(capabilities.SYSTEM_ROLE) is False:
        messages = _without_system(messages)
    if request.pictures:
        parts: list[dict[str, Any]] = [{"type": "text", "text": messages[-1]["content"]}]
        for picture in request.pictures:
            data = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode()}"
            if picture.is_document:
                parts.append({"type": "file", "file": {"filename": picture.name, "file_data": data}})
            else:
                parts.append({"type": "image_url", "image_url": {"url": data}})
        messages[-1] = {**messages[-1], "content": parts}
    for each in request.rounds:
        messages += _round(each)
    return messages


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the system's text before the first words of the user."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": system}, *others]
    return [{**others[0], "content": f"{system}\n\n{others[0]['content']}"}, *others[1:]]


def _round(round_: ToolRound) -> list[dict[str, Any]]:
    """Return the assistant's message as it came, without reasoning that it wrote as text, and its calls' answers."""
    completion = round_.completion
    kept = completion.given if isinstance(completion.given, dict) else {}
    raw = kept.get("calls") or []
    calls = []
    for number, each in enumerate(completion.tool_calls):
        extra = raw[number] if len(raw) == len(completion.tool_calls) else {}
        function = {"name": each.name, "arguments": each.arguments}
        calls.append({**extra, "id": each.id, "type": "function", "function": function})
    said = {"role": "assistant", "content": completion.text or None, "tool_calls": calls, **kept.get("message", {})}
    answered = zip(completion.tool_calls, round_.answers, strict=True)
    return [said, *({"role": "tool", "tool_call_id": each.id, "content": answer} for each, answer in answered)]


# --- the answer ------------------------------------------------------------------------------------------------------
def _finish(reason: Any) -> str:
    return _FINISH.get(str(reason), answers.STOP)


def _probabilities(choice: Mapping[str, Any]) -> list[Any]:
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    return content if isinstance(content, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _take_usage(answer: Answer, data: Mapping[str, Any]) -> None:
    usage = data.get("usage")
    answer.tokens_in = answers.count(usage, "prompt_tokens")
    answer.tokens_out = answers.count(usage, "completion_tokens")
    cached = answers.count(usage, "prompt_tokens_details", "cached_tokens")
    answer.tokens_cached = cached or answers.count(usage, "prompt_cache_hit_tokens")  # DeepSeek
    answer.model = data["model"] if isinstance(data.get("model"), str) else ""


def _take_calls(answer: Answer, raw: list[dict[str, Any]], message: Mapping[str, Any]) -> None:
    """Put the calls, and what is to be given back with them, into the answer. Ids that occur twice are made up anew."""
    kept: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, each in enumerate(raw, 1):
        function = _object(each.get("function"))
        identifier = each.get("id")
        found = answers.call(
            None if identifier in seen else identifier, function.get("name"), function.get("arguments"), number
        )
        if found:
            seen.add(found.id)
            answer.calls.append(found)
            kept.append({name: value for name, value in each.items() if name in _GIVEN_BACK})
    given_back = {name: value for name, value in message.items() if value is not None}
    answer.given = {"message": given_back, "calls": kept}


class StreamReader:
    """Reads a streamed chat completion.

    Each tool call comes in pieces, which name it by `index`; the first piece has the id and the name. Some servers give
    all calls the same index, or none: a new id, or a name after arguments, begins a new call.
    """

    def __init__(self) -> None:
        self._answer = Answer()
        self._probabilities: list[Any] = []
        self._calls: list[dict[str, Any]] = []
        self._at: dict[int, int] = {}  # index in the stream: the newest call of that index
        self._message: dict[str, Any] = {}
        self._length = 0

    def read(self, event: Mapping[str, Any]) -> str:
        """Return the text in the event."""
        answer = self._answer
        if isinstance(event.get("model"), str) and event["model"]:
            answer.model = event["model"]
        if event.get("usage"):
            model, answer.model = answer.model, ""
            _take_usage(answer, event)
            answer.model = answer.model or model
        choice = next(iter(event.get("choices") or ()), None)
        if not isinstance(choice, dict):
            return ""
        if choice.get("error"):
            answer.finish = answers.ERROR
        elif choice.get("finish_reason") and answer.finish != answers.ERROR:
            answer.finish = _finish(choice["finish_reason"])
        self._probabilities += _probabilities(choice)
        delta = _object(choice.get("delta"))
        self._read_rest(delta)
        return answers.text_of(delta.get("content"))

    def _read_rest(self, delta: Mapping[str, Any]) -> None:
        if isinstance(delta.get("refusal"), str):
            self._answer.refusal += delta["refusal"][: answers.LONGEST_TEXT]
        for name in _GIVEN_BACK:
            self._add(self._message, name, delta.get(name))
        pieces = delta.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                self._read_call(piece)

    def _add(self, to: dict[str, Any], name: str, value: Any) -> None:
        """Add a piece of what is given back: texts and lists grow, objects are replaced."""
        before = to.get(name)
        if isinstance(value, str) and self._length < answers.LONGEST_TEXT:
            self._length += len(value)
            to[name] = (before if isinstance(before, str) else "") + value
        elif isinstance(value, list):
            to[name] = [*(before if isinstance(before, list) else []), *value]
        elif isinstance(value, dict):
            to[name] = value

    def _read_call(self, piece: dict[str, Any]) -> None:
        function = _object(piece.get("function"))
        call = self._call_of(piece, function)
        if call is None:
            return
        for name in _GIVEN_BACK:
            self._add(call, name, piece.get(name))
        call["id"] = call["id"] or piece.get("id")
        said = call["function"]
        said["name"] = said["name"] or function.get("name")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            said["arguments"] = arguments
        elif isinstance(arguments, str) and isinstance(said["arguments"], str):
            self._length += len(arguments)
            said["arguments"] += arguments if self._length <= answers.LONGEST_TEXT else ""

    def _call_of(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the call that a piece belongs to; None if it belongs to none."""
        index = piece.get("index")
        index = index if isinstance(index, int) and not isinstance(index, bool) else -1
        newest = self._calls[self._at[index]] if index in self._at else None
        if newest is None and index == -1 and not piece.get("id") and not function.get("name"):
            newest = self._calls[-1] if self._calls else None
        elif newest is not None and _begins_another(piece, function, newest):
            newest = None
        if newest is None and len(self._calls) < answers.MOST_CALLS and (piece.get("id") or function.get("name")):
            newest = {"id": "", "function": {"name": "", "arguments": ""}}
            self._calls.append(newest)
            self._at[index] = len(self._calls) - 1
        return newest

    def answer(self) -> Answer:
        """Return the whole answer."""
        _take_calls(self._answer, self._calls, self._message)
        self._answer.probabilities = self._probabilities
        return self._answer


def _begins_another(piece: Mapping[str, Any], function: Mapping[str, Any], newest: Mapping[str, Any]) -> bool:
    identifier = piece.get("id")
    if identifier and newest["id"]:
        return bool(identifier != newest["id"])
    named = newest["function"]
    return bool(function.get("name") and named["name"] and (named["arguments"] or function["name"] != named["name"]))
