"""Replies written by an LLM, through the one door to it."""

from __future__ import annotations

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from memory import llm
from memory.context import STAFF_MARK


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
            raise EngineError(
                str(error), code=error.code, retryable=error.retryable, retry_after=error.retry_after
            ) from error
        # A model that has seen a colleague's messages marked may copy the mark: it must not pass for a colleague.
        text = completion.text.removeprefix(STAFF_MARK.strip()).lstrip()
        if not text:
            raise EngineError("The LLM answered nothing.", code="bad_answer", retryable=True)
        return Reply(
            text=text,
            engine=self.name,
            model=completion.model,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            finish_reason=completion.finish_reason,
        )
