"""Calls the LLM for a completion that is read while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from memory import llm
from memory.llm import Completion, LLMError, RequestedToolCall
from memory.text import storable

if TYPE_CHECKING:
    from openai import AsyncStream

LONGEST_SECONDS = 900.0  # of a whole stream; a model that never ends is cut off
LONGEST_TEXT = 200_000  # characters; the rest is not read
MOST_CALLS = 100  # of tools, in one completion


async def stream(
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    may_call: bool = True,
    confidence: bool = False,
) -> AsyncIterator[str | Completion]:
    """Yield the pieces of one completion as they come, then the Completion: all pieces together, and its tool calls.

    The arguments are those of `llm.complete`. `OPENAI_TIMEOUT_SECONDS` is the longest wait for the first piece, and
    between two. Runs on an event loop; the deadlines are asyncio's, which cancel whatever is being waited on. Raises
    LLMError with the codes of `memory/llm.py`; `cut_off` if the stream ends without saying that it is complete.
    """
    body = llm.request_body(messages, model=model, temperature=temperature, max_tokens=max_tokens)
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto" if may_call else "none"}
    if confidence:
        body["logprobs"] = True
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    state = _StreamState(asked=body["model"], calls=bool(tools) and may_call)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            opened = await _in_time(_open(body))
            try:
                while (event := await _in_time(_next(opened))) is not None:
                    if piece := state.read(event):
                        yield piece
                    if len(state.text) >= LONGEST_TEXT:
                        state.finish_reason = "length"
                        break
            finally:
                await opened.aclose()
    except TimeoutError:
        raise LLMError("The LLM stopped answering.", code="timeout", retryable=True) from None
    yield state.completion()


async def _in_time(step: Any) -> Any:
    async with asyncio.timeout(settings.OPENAI_TIMEOUT_SECONDS):
        return await step


async def _open(body: Mapping[str, Any]) -> AsyncStream[object]:
    from openai import AsyncStream, OpenAIError

    client, options = llm.client_and_options()
    try:
        return await client.post(
            "/chat/completions", body=body, cast_to=object, options=options, stream=True, stream_cls=AsyncStream[object]
        )
    except OpenAIError as error:
        failure = llm.as_llm_error(error)
    except UnicodeError:
        failure = LLMError("The request holds what cannot be encoded.", code="bad_request", retryable=False)
    raise failure  # here, so that no traceback shows the SDK's error, which quotes the server


async def _next(opened: AsyncStream[object]) -> object | None:
    """Return the next event; None after the last. `object` avoids the SDK's typed layer: 0.1 ms for each event."""
    from openai import APIStatusError, OpenAIError

    try:
        return await anext(opened, None)
    except APIStatusError as error:
        failure = llm.as_llm_error(error)
    except OpenAIError:
        failure = LLMError("The LLM's stream broke off.", code="cut_off", retryable=True)
    except (ValueError, LookupError, TypeError, RecursionError):
        failure = LLMError("The LLM's stream is not a stream of completions.", code="bad_answer", retryable=True)
    except Exception as error:  # the SDK lets errors of its HTTP library through in the middle of a body
        if not type(error).__module__.startswith(("httpx", "httpcore", "h11")):
            raise
        failure = LLMError("The LLM's stream broke off.", code="cut_off", retryable=True)
    raise failure


class _StreamState:
    """The part of a completion that has come so far."""

    def __init__(self, *, asked: str, calls: bool = False) -> None:
        self.text = ""
        self.calls = _ToolCallPieces() if calls else None
        self.model = asked
        self.finish_reason = ""
        self.usage: Any = None
        self.probabilities: list[Any] = []

    def read(self, event: object) -> str:
        """Return the storable piece of text in the event. Raises LLMError if the content filter refused."""
        if not isinstance(event, dict):
            return ""
        if isinstance(event.get("model"), str) and event["model"]:
            self.model = storable(event["model"])[:100]
        self.usage = event.get("usage") or self.usage
        choice = next(iter(event.get("choices") or ()), None)
        if not isinstance(choice, dict):
            return ""
        self.finish_reason = str(choice.get("finish_reason") or self.finish_reason)
        if self.finish_reason == "content_filter":
            raise LLMError("The LLM's content filter refused.", code="refused", retryable=False)
        self.probabilities += llm.probabilities_in(choice)
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if self.calls:
            self.calls.read(delta.get("tool_calls"))
        content = delta.get("content")
        piece = storable(content)[: LONGEST_TEXT - len(self.text)] if isinstance(content, str) else ""
        if not self.text:
            piece = piece.lstrip()
        self.text += piece
        return piece

    def completion(self) -> Completion:
        """Return the whole completion. Raises LLMError if the stream never said that it is complete, or was empty."""
        if not self.finish_reason:
            raise LLMError("The LLM's stream ended before its end.", code="cut_off", retryable=True)
        called = self.calls.whole() if self.calls else ()
        if not self.text and not called:
            raise LLMError("The LLM answered nothing.", code="bad_answer", retryable=True)
        return Completion(
            text=self.text,
            model=self.model,
            tokens_in=llm.token_count(self.usage, "prompt_tokens"),
            tokens_out=llm.token_count(self.usage, "completion_tokens"),
            finish_reason="length" if self.finish_reason == "length" else "stop",
            tool_calls=called,
            confidence=llm.confidence_of(self.probabilities),
        )


class _ToolCallPieces:
    """Puts the tool calls of one completion together.

    Each call comes in pieces, which name it by `index`; the first piece has the id and the name. Source: OpenAI, API
    reference, "Streaming", `delta.tool_calls`.
    """

    def __init__(self) -> None:
        self._begun: dict[int, dict[str, str]] = {}
        self._length = 0

    def read(self, pieces: object) -> None:
        """Add the pieces of an event; malformed ones are ignored."""
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                self._add(piece)

    def _add(self, piece: dict[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call = self._call_of(piece.get("index"), piece.get("id"))
        said = {"id": piece.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
        for name, text in said.items():
            if call is None or not isinstance(text, str) or self._length + len(text) > LONGEST_TEXT:
                continue
            self._length += len(text)
            call[name] = call[name] + text if name == "arguments" else call[name] or text

    def _call_of(self, index: object, call_id: object) -> dict[str, str] | None:
        """Return the call that a piece belongs to. If a server gives no index, each id begins a new call."""
        if not isinstance(index, int) or isinstance(index, bool):
            index = len(self._begun) if call_id else len(self._begun) - 1
        if index not in self._begun and (index < 0 or len(self._begun) >= MOST_CALLS):
            return None
        return self._begun.setdefault(index, {"id": "", "name": "", "arguments": ""})

    def whole(self) -> tuple[RequestedToolCall, ...]:
        """Return the calls that have an id and a name, in their order."""
        return tuple(
            RequestedToolCall(**call) for _, call in sorted(self._begun.items()) if call["id"] and call["name"]
        )
