"""Replies written by an LLM, through the one door to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from memory import llm, llm_stream
from memory.context import STAFF_MARK

MARK = STAFF_MARK.strip()


class OpenAIChat:
    """One chat completion a reply: OpenAI's, or that of any compatible server (`OPENAI_BASE_URL`)."""

    name = "openai"

    def reply(self, request: ReplyRequest) -> Reply:
        """The model's answer, within `OPENAI_TIMEOUT_SECONDS`. Raises EngineError, with the door's codes."""
        try:
            completion = llm.complete(
                request.prompt.messages,
                model=request.model,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
            )
        except llm.LLMError as error:
            raise _as_engine_error(error) from error
        # A model that has seen a colleague's messages marked may copy the mark: it must not pass for a colleague.
        text = completion.text.removeprefix(MARK).lstrip()
        if not text:
            raise _nothing_said()
        return _as_reply(completion, text)

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
    )
