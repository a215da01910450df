"""The one door to the LLM once more, for replies that are read while they are written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from memory import llm
from memory.llm import Call, Completion, LLMError
from memory.text import storable

if TYPE_CHECKING:
    from openai import AsyncStream

LONGEST_SECONDS = 900.0  # of a whole stream; a model that never ends is cut off
LONGEST_TEXT = 200_000  # characters; what comes after them is not read
MOST_CALLS = 100  # of tools, in one completion


async def stream(
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    may_call: bool = True,
) -> AsyncIterator[str | Completion]:
    """The pieces of one completion as they come, and the Completion at the end, whose text is all of them together,
    with the tools that the model calls.

    Arguments as for `llm.complete`. `OPENAI_TIMEOUT_SECONDS` is how long the model may be silent, at first and between
    two pieces. For an event loop; the deadlines are asyncio's, which cut off whatever is being waited on. Raises
    LLMError with the door's codes: `cut_off` where the stream ends without saying that it is complete.
    """
    body = llm.request_body(messages, model=model, temperature=temperature, max_tokens=max_tokens)
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto" if may_call else "none"}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    written = _Written(asked=body["model"], calls=bool(tools) and may_call)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            opened = await _in_time(_open(body))
            try:
                while (event := await _in_time(_next(opened))) is not None:
                    if piece := written.read(event):
                        yield piece
                    if len(written.text) >= LONGEST_TEXT:
                        written.finish_reason = "length"
                        break
            finally:
                await opened.aclose()
    except TimeoutError:
        raise LLMError("The LLM fell silent.", code="timeout", retryable=True) from None
    yield written.completion()


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
        failure = llm.failure_of(error)
    except UnicodeError:
        failure = LLMError("The request holds what cannot be encoded.", code="bad_request", retryable=False)
    raise failure  # out here, so that no traceback shows the SDK's error, which quotes the server


async def _next(opened: AsyncStream[object]) -> object | None:
    """The next event, None after the last. `object` is what spares us the SDK's typed layer, 0.1 ms for each."""
    from openai import APIStatusError, OpenAIError

    try:
        return await anext(opened, None)
    except APIStatusError as error:
        failure = llm.failure_of(error)
    except OpenAIError:
        failure = LLMError("The LLM's stream broke off.", code="cut_off", retryable=True)
    except (ValueError, LookupError, TypeError, RecursionError):
        failure = LLMError("The LLM's stream is no stream of completions.", code="bad_answer", retryable=True)
    except Exception as error:  # the SDK lets errors of its HTTP library through in the middle of a body
        if not type(error).__module__.startswith(("httpx", "httpcore", "h11")):
            raise
        failure = LLMError("The LLM's stream broke off.", code="cut_off", retryable=True)
    raise failure


class _Written:
    """What came so far."""

    def __init__(self, *, asked: str, calls: bool = False) -> None:
        self.text = ""
        self.calls = _Calls() if calls else None
        self.model = asked
        self.finish_reason = ""
        self.usage: Any = None

    def read(self, event: object) -> str:
        """The piece of text in the event, as it can be stored. Raises LLMError where the content filter refuses."""
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
        """All of it. Raises LLMError where it does not say that it is complete, or says nothing."""
        if not self.finish_reason:
            raise LLMError("The LLM's stream ended before its end.", code="cut_off", retryable=True)
        called = self.calls.whole() if self.calls else ()
        if not self.text and not called:
            raise LLMError("The LLM answered nothing.", code="bad_answer", retryable=True)
        return Completion(
            text=self.text,
            model=self.model,
            tokens_in=llm.count_of(self.usage, "prompt_tokens"),
            tokens_out=llm.count_of(self.usage, "completion_tokens"),
            finish_reason="length" if self.finish_reason == "length" else "stop",
            tool_calls=called,
        )


class _Calls:
    """The tool calls of one completion: each comes in pieces, which say by `index` whose they are; the first has the id
    and the name. Source: OpenAI, API reference, "Streaming", `delta.tool_calls`."""

    def __init__(self) -> None:
        self._begun: dict[int, dict[str, str]] = {}
        self._length = 0

    def read(self, pieces: object) -> None:
        """Note what an event says of calls; what makes no sense is passed over."""
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                self._read(piece)

    def _read(self, piece: dict[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call = self._call(piece.get("index"), piece.get("id"))
        said = {"id": piece.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
        for name, text in said.items():
            if call is None or not isinstance(text, str) or self._length + len(text) > LONGEST_TEXT:
                continue
            self._length += len(text)
            call[name] = call[name] + text if name == "arguments" else call[name] or text

    def _call(self, index: object, call_id: object) -> dict[str, str] | None:
        """The call that a piece belongs to; where a server gives no index, a new one begins with each id."""
        if not isinstance(index, int) or isinstance(index, bool):
            index = len(self._begun) if call_id else len(self._begun) - 1
        if index not in self._begun and (index < 0 or len(self._begun) >= MOST_CALLS):
            return None
        return self._begun.setdefault(index, {"id": "", "name": "", "arguments": ""})

    def whole(self) -> tuple[Call, ...]:
        """Those that say what they call, in their order."""
        return tuple(Call(**call) for _, call in sorted(self._begun.items()) if call["id"] and call["name"])
