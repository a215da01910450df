"""Writes replies by an LLM, which is called through memory/llm.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from django.conf import settings

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.engines.tools import STREAMED_TOOLS, TOOLS, Toolbox
from memory import llm, llm_stream
from memory.context import STAFF_MARK

MARK = STAFF_MARK.strip()
MAX_ROUNDS = 4  # calls of the model for one reply
PARAGRAPH = "\n\n"  # between the texts of two rounds


class OpenAIChat:
    """Chat completions of OpenAI, or of any compatible server (`OPENAI_BASE_URL`)."""

    name = "openai"

    def reply(self, request: ReplyRequest) -> Reply:
        """Return the model's answer after its tool calls, within `OPENAI_TIMEOUT_SECONDS`.

        Raises EngineError with the codes of memory/llm.py.
        """
        box = Toolbox(request.steps)
        try:
            rounds = _run_rounds(request, box)
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        # The model may copy the mark of a colleague's messages: its reply must not look like a colleague's.
        text = rounds[-1].text.removeprefix(MARK).lstrip()
        if not text:
            raise _empty_answer()
        return _as_reply(rounds, text, box)

    async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """Yield the model's answer piece by piece, then the Reply with its tool calls.

        Text that came before an invalid tool call stays in the reply. Raises EngineError with the codes of
        memory/llm.py.
        """
        box, said = Toolbox(request.steps, STREAMED_TOOLS), ""
        messages: list[Mapping[str, Any]] = list(request.prompt.messages)
        rounds: list[llm.Completion] = []
        try:
            while len(rounds) < MAX_ROUNDS:
                between = PARAGRAPH if said else ""
                async for piece in _without_mark(_pieces(request, messages, may_call=len(rounds) + 1 < MAX_ROUNDS)):
                    if isinstance(piece, llm.Completion):
                        rounds.append(piece)
                        continue
                    piece, between = between + piece, ""
                    said += piece
                    yield piece
                valid = [box.call(call.name, call.arguments) for call in rounds[-1].tool_calls]
                if not valid or (all(valid) and said):
                    break
                messages += llm.as_messages(rounds[-1], [call.answer for call in box.calls[-len(valid) :]])
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        if not said:
            raise _empty_answer()
        yield _as_reply(rounds, said, box)


async def _without_mark(pieces: AsyncIterator[str | llm.Completion]) -> AsyncIterator[str | llm.Completion]:
    """Yield the pieces without a colleague's mark at the beginning, held back while the text may be the mark."""
    held: str | None = ""
    async for piece in pieces:
        if isinstance(piece, llm.Completion):
            if held and held != MARK:
                yield held
            yield piece
            continue
        if held is not None:
            held += piece
            if MARK.startswith(held):
                continue
            piece, held = held.removeprefix(MARK).lstrip(), None
        if piece:
            yield piece


def _run_rounds(request: ReplyRequest, box: Toolbox) -> list[llm.Completion]:
    """Return the model's answers, round after round, until it answered in text and all its tool calls were valid.

    In the last round it may not call tools. Raises LLMError.
    """
    messages: list[Mapping[str, Any]] = list(request.prompt.messages)
    ends_at = time.monotonic() + settings.OPENAI_TIMEOUT_SECONDS
    rounds: list[llm.Completion] = []
    for number in range(1, MAX_ROUNDS + 1):
        completion = llm.complete(
            messages,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            tools=TOOLS if request.tools else (),
            may_call=number < MAX_ROUNDS,
            confidence=request.confidence,
            seconds=max(ends_at - time.monotonic(), 0.001) if rounds else None,
        )
        rounds.append(completion)
        valid = [box.call(call.name, call.arguments) for call in completion.tool_calls]
        if all(valid) and completion.text:
            break
        answers = [call.answer for call in box.calls[-len(valid) :]]
        messages += llm.as_messages(completion, answers)
    return rounds


def _empty_answer() -> EngineError:
    return EngineError("The LLM's answer is empty.", code="bad_answer", retryable=True)


def _pieces(
    request: ReplyRequest, messages: Sequence[Mapping[str, Any]], *, may_call: bool
) -> AsyncIterator[str | llm.Completion]:
    return llm_stream.stream(
        messages,
        model=request.model,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        tools=STREAMED_TOOLS if request.tools else (),
        may_call=may_call,
        confidence=request.confidence,
    )


def _as_engine_error(error: llm.LLMError) -> EngineError:
    return EngineError(str(error), code=error.code, retryable=error.retryable, retry_after=error.retry_after)


def _as_reply(rounds: Sequence[llm.Completion], text: str, box: Toolbox) -> Reply:
    last = rounds[-1]
    return Reply(
        text=text,
        engine=OpenAIChat.name,
        model=last.model,
        tokens_in=sum(each.tokens_in for each in rounds),
        tokens_out=sum(each.tokens_out for each in rounds),
        finish_reason=last.finish_reason,
        tool_actions=tuple(box.tool_actions),
        tool_calls=tuple(box.calls),
        confidence=last.confidence,
    )
