"""What every engine promises: given the prompt, one reply. Engines wait on the network and touch no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from memory.context import Entry, Prompt
from memory.redaction import CARDS_ALONE, Rules


class ChatBook(Protocol):
    """Where an engine that keeps chats of its own writes down, at once, what must survive it."""

    def opened(self, chat_id: str) -> None:
        """The session goes on in this chat. Raises EngineError (`lost`) where the turn is not ours any more."""

    def asking(self, chat_id: str, upto: int) -> None:
        """The chat is about to be told all up to this position. Raises EngineError (`lost`)."""


@dataclass(frozen=True, slots=True)
class ChatSoFar:
    """A session's chat at an engine that keeps the conversation itself, and what it has not heard yet.

    agent_id    who answers there
    chat_id     '' if there is none yet
    turns       how many of the person's messages it certainly has
    told        the position up to which it certainly heard
    asked       the position up to which it was being told when the answer was lost; None if none was
    unheard     what was said since `told`, oldest first
    carried     what was said before that, for a chat that begins in the middle; '' at the beginning of the session
    begins      nobody has said anything yet, and the agent is to speak first
    opener      what it is told then, where it says nothing by itself
    metadata, variables     what a new chat is given
    """

    book: ChatBook
    agent_id: str
    chat_id: str = ""
    turns: int = 0
    told: int = 0
    asked: int | None = None
    unheard: tuple[Entry, ...] = ()
    carried: str = ""
    begins: bool = False
    opener: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What a chat has heard once its reply is here: all up to position `upto`, in `turns` messages of the person.
    `prompt` is what it was told for this reply, empty if nothing; `ended`: it takes no more."""

    chat_id: str
    upto: int
    turns: int
    prompt: Prompt
    ended: bool = False


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
    rules: Rules = CARDS_ALONE  # what is removed from the reply
    chat: ChatSoFar | None = None  # for engines that keep the conversation themselves


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
    told: Told | None = None


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
        """One reply. It is blank only where the other side chose to say nothing. Raises EngineError."""
