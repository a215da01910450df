"""Replies written by an LLM, through the one door to it."""

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
MOST_ROUNDS = 4
PARAGRAPH = "\n\n"  # between what is said in two rounds


class OpenAIChat:
    """One chat completion a reply: OpenAI's, or that of any compatible server (`OPENAI_BASE_URL`)."""

    name = "openai"

    def reply(self, request: ReplyRequest) -> Reply:
        """The model's answer, within `OPENAI_TIMEOUT_SECONDS`, after what it did with tools. Raises EngineError, with
        the door's codes."""
        box = Toolbox(request.steps)
        try:
            rounds = _rounds(request, box)
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        # A model that has seen a colleague's messages marked may copy the mark: it must not pass for a colleague.
        text = rounds[-1].text.removeprefix(MARK).lstrip()
        if not text:
            raise _nothing_said()
        return _as_whole(rounds, text, box)

    async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """The model's answer piece by piece, and at the end as a Reply, with what it did with tools. What it says
        before it is told that a call was wrong stays said. Raises EngineError, with the door's codes."""
        box, said = Toolbox(request.steps, STREAMED_TOOLS), ""
        messages: list[Mapping[str, Any]] = list(request.prompt.messages)
        rounds: list[llm.Completion] = []
        try:
            while len(rounds) < MOST_ROUNDS:
                between = PARAGRAPH if said else ""
                async for piece in _unmarked(_pieces(request, messages, may_call=len(rounds) + 1 < MOST_ROUNDS)):
                    if isinstance(piece, llm.Completion):
                        rounds.append(piece)
                        continue
                    piece, between = between + piece, ""
                    said += piece
                    yield piece
                right = [box.call(call.name, call.arguments) for call in rounds[-1].tool_calls]
                if not right or (all(right) and said):
                    break
                messages += llm.as_messages(rounds[-1], [call.answer for call in box.calls[-len(right) :]])
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        if not said:
            raise _nothing_said()
        yield _as_whole(rounds, said, box)


async def _unmarked(pieces: AsyncIterator[str | llm.Completion]) -> AsyncIterator[str | llm.Completion]:
    """The pieces without a colleague's mark at the beginning, which is held back for as long as it may be one."""
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


def _rounds(request: ReplyRequest, box: Toolbox) -> list[llm.Completion]:
    """What the model answered, round after round, until it spoke and all its calls were right; in the last round it
    may only speak. Raises LLMError."""
    messages: list[Mapping[str, Any]] = list(request.prompt.messages)
    ends_at = time.monotonic() + settings.OPENAI_TIMEOUT_SECONDS
    rounds: list[llm.Completion] = []
    for number in range(1, MOST_ROUNDS + 1):
        completion = llm.complete(
            messages,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            tools=TOOLS if request.tools else (),
            may_call=number < MOST_ROUNDS,
            confidence=request.confidence,
            seconds=max(ends_at - time.monotonic(), 0.001) if rounds else None,
        )
        rounds.append(completion)
        right = [box.call(call.name, call.arguments) for call in completion.tool_calls]
        if all(right) and completion.text:
            break
        answers = [call.answer for call in box.calls[-len(right) :]]
        messages += llm.as_messages(completion, answers)
    return rounds


def _nothing_said() -> EngineError:
    return EngineError("The LLM answered nothing.", code="bad_answer", retryable=True)


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
    )


def _as_engine_error(error: llm.LLMError) -> EngineError:
    return EngineError(str(error), code=error.code, retryable=error.retryable, retry_after=error.retry_after)


def _as_whole(rounds: Sequence[llm.Completion], text: str, box: Toolbox) -> Reply:
    last = rounds[-1]
    return Reply(
        text=text,
        engine=OpenAIChat.name,
        model=last.model,
        tokens_in=sum(each.tokens_in for each in rounds),
        tokens_out=sum(each.tokens_out for each in rounds),
        finish_reason=last.finish_reason,
        deeds=tuple(box.deeds),
        tool_calls=tuple(box.calls),
        confidence=last.confidence,
    )
