"""What every engine promises: given the prompt, one reply. Engines wait on the network and touch no database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from memory.context import Prompt

# What an assistant can do beside speaking. Each is applied in the transaction that commits its reply, if that is said.
ASK_FOR_HUMAN = "ask_for_human"
END_CONVERSATION = "end_conversation"


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step that is still to do, as the session had it when the prompt was made."""

    id: int
    description: str


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """What an engine is given: the prompt, and the assistant's `model`, `temperature` and `max_tokens` ('' and None
    mean the default). `goal` and `pending_steps` are in the prompt too; here they are for engines that take none.

    steps           the same steps with their ids, for an engine whose model may move them
    tools           whether it may: see conversations/engines/tools.py
    confidence      whether the engine is to say how sure it is of its words, where it can
    """

    conversation_id: str
    prompt: Prompt
    goal: str = ""
    pending_steps: tuple[str, ...] = ()
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    steps: tuple[PendingStep, ...] = ()
    tools: bool = False
    confidence: bool = False


@dataclass(frozen=True, slots=True)
class Deed:
    """Something the model wants to be done, checked as far as that is possible without the database: the name of a tool
    and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as the model made it, and what it was answered; `arguments` is its JSON, unchecked."""

    name: str
    arguments: str
    answer: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine gives back. `finish_reason` is `stop`, or `length` where the model ran into `max_tokens`.

    tokens_in, tokens_out           of all the calls that the reply took
    first_token_ms, last_token_ms   milliseconds from the request to the model's first and last word; the first is None
                                    where the reply came as a whole. The dispatcher measures what an engine does not
    deeds                           what is to be done with it
    tool_calls                      all that the model tried, for the record
    confidence                      from 0 to 1, where it was asked for and the model says so
    """

    text: str
    engine: str
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = "stop"
    first_token_ms: int | None = None
    last_token_ms: int | None = None
    deeds: tuple[Deed, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    confidence: float | None = None


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
