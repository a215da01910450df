"""Replies written by an LLM, through the one door to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.engines.tools import TOOLS, Toolbox
from memory import llm, llm_stream
from memory.context import STAFF_MARK

MARK = STAFF_MARK.strip()
MOST_ROUNDS = 4


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
        return replace(
            _as_reply(rounds[-1], text),
            tokens_in=sum(each.tokens_in for each in rounds),
            tokens_out=sum(each.tokens_out for each in rounds),
            deeds=tuple(box.deeds),
            tool_calls=tuple(box.calls),
        )

    async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """The model's answer piece by piece, and at the end as a Reply. Raises EngineError, with the door's codes."""
        said, last = "", None
        held: str | None = ""  # the beginning, while it may be a colleague's mark
        try:
            async for piece in _pieces(request):
                if isinstance(piece, llm.Completion):
                    last = piece
                    continue
                if held is not None:
                    held += piece
                    if MARK.startswith(held):
                        continue
                    piece, held = held.removeprefix(MARK).lstrip(), None
                if piece:
                    said += piece
                    yield piece
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        if held and held != MARK:
            said = held
            yield held
        if not said or last is None:
            raise _nothing_said()
        yield _as_reply(last, said)


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


def _pieces(request: ReplyRequest) -> AsyncIterator[str | llm.Completion]:
    return llm_stream.stream(
        request.prompt.messages, model=request.model, temperature=request.temperature, max_tokens=request.max_tokens
    )


def _as_engine_error(error: llm.LLMError) -> EngineError:
    return EngineError(str(error), code=error.code, retryable=error.retryable, retry_after=error.retry_after)


def _as_reply(completion: llm.Completion, text: str) -> Reply:
    return Reply(
        text=text,
        engine=OpenAIChat.name,
        model=completion.model,
        tokens_in=completion.tokens_in,
        tokens_out=completion.tokens_out,
        finish_reason=completion.finish_reason,
        confidence=completion.confidence,
    )
