"""What every engine promises: given the prompt, one reply. Engines wait on the network and touch no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memory.context import Prompt


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """What an engine is given: the prompt, and the assistant's `model`, `temperature` and `max_tokens` ('' and None
    mean the default). `goal` and `pending_steps` are in the prompt too; here they are for engines that take none."""

    conversation_id: str
    prompt: Prompt
    goal: str = ""
    pending_steps: tuple[str, ...] = ()
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine gives back. `finish_reason` is `stop`, or `length` where the model ran into `max_tokens`.

    `first_token_ms` and `last_token_ms` are milliseconds from the request to the model's first and last word; the first
    is None where the reply came as a whole. The dispatcher measures what an engine does not.
    """

    text: str
    engine: str
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = "stop"
    first_token_ms: int | None = None
    last_token_ms: int | None = None


class EngineError(Exception):
    """No reply. `code` is a machine word (`timeout`, `rate_limited`, `http_503`, `bad_answer`, `cut_off`,
    `unauthorized` …; memory/llm.py lists the LLM's); `retryable` says that trying again can help; `retry_after` is in
    seconds where the provider named a time. The sentence holds no message text, phone number or key."""

    def __init__(self, message: str, *, code: str, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after


class Engine(Protocol):
    """Writes a reply."""

    name: str

    def reply(self, request: ReplyRequest) -> Reply:
        """One reply that is not blank. Raises EngineError."""
