"""The contract with language models: what is asked, what is answered, and how a call fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from uuid import UUID

SECONDS = 60.0  # for an answer, where a provider names no time


class Kind(str, Enum):  # noqa: UP042 - a StrEnum takes no second value
    """The protocol of a provider."""

    OPENAI = "openai"
    COMPATIBLE = "openai_compatible"
    ANTHROPIC = "anthropic"

    @property
    def label(self) -> str:
        """Return the name for staff."""
        return {
            Kind.OPENAI: "OpenAI (Responses API)",
            Kind.COMPATIBLE: "OpenAI-compatible (chat completions)",
            Kind.ANTHROPIC: "Anthropic (Messages API)",
        }[self]

    @property
    def has_embeddings(self) -> bool:
        """Return whether providers of this kind make the vectors of texts."""
        return self is not Kind.ANTHROPIC

    @property
    def has_transcription(self) -> bool:
        """Return whether providers of this kind write down what is said in recordings."""
        return self is not Kind.ANTHROPIC


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a provider's answer taught of a model; `capabilities.py` lists the names.

    why     the code, the parameter or the number that taught it, never a sentence of the provider's
    keep    it holds for the model, and not for one request alone
    """

    name: str
    value: Any
    why: str
    keep: bool = True


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """A model at a provider, and all that it takes to ask it.

    provider_id     the id of the provider's row; None if it has none
    base_url        '' for the provider's own; without query
    key             '' if the server wants none
    query, headers, body    added to every request; `body` takes precedence over what Convo sends
    seconds         for a whole answer, or between two pieces of a stream
    known           the facts that were learned of the model before, by name
    is_broken       the provider refused us the last time, for a reason that a person must mend
    """

    kind: Kind
    model: str
    base_url: str = ""
    key: str = field(default="", repr=False)
    provider_id: UUID | None = None
    name: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = SECONDS
    known: Mapping[str, Any] = field(default_factory=dict)
    is_broken: bool = False

    def learning(self, facts: Sequence[Fact]) -> ModelAccess:
        """Return this access with more known of its model."""
        return replace(self, known={**self.known, **{fact.name: fact.value for fact in facts}})


@dataclass(frozen=True, slots=True)
class RequestedToolCall:
    """A tool call that the model asks for. `arguments` is the model's JSON, which nothing has checked yet."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer to one request.

    text            fits a PostgreSQL text column, without reasoning; blank only if there are `tool_calls`
    model           the model that answered, as the server names it
    finish_reason   `stop`, `length` if the answer was cut off, or `refused`: the text is the model's refusal
    confidence      the geometric mean of its tokens' probabilities, from 0 to 1; None if the server gave none
    tokens_cached   the part of `tokens_in` that the provider read from its cache
    given           the answer in the provider's own form, which is given back with the answers to its tool calls
    learned         what this call taught of the model
    """

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    finish_reason: str = "stop"
    tool_calls: tuple[RequestedToolCall, ...] = ()
    confidence: float | None = None
    given: Any = None
    learned: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRound:
    """A completion that called tools, and the answers to its calls, in their order."""

    completion: Completion
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture or document (`application/pdf`) that the model is to look at; `data` is its content.

    name    of a document, which some providers demand
    """

    media_type: str
    data: bytes = field(repr=False)
    name: str = "document.pdf"

    @property
    def is_document(self) -> bool:
        """Return whether it is a document."""
        return not self.media_type.startswith("image/")


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One request for an answer.

    messages    dicts with `role` (system, user or assistant) and `content`
    rounds      the tool rounds so far, which follow the messages
    tools       in the form of chat completions; with `may_call` False the model must answer in text
    temperature, max_tokens, reasoning_effort    None and '' mean the model's defaults
    confidence  ask for the probabilities of the answer's tokens
    pictures    shown with the last message, documents too
    """

    messages: Sequence[Mapping[str, str]]
    rounds: Sequence[ToolRound] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    may_call: bool = True
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str = ""
    confidence: bool = False
    pictures: Sequence[Picture] = ()


class LLMError(Exception):
    """A call to a language model failed. The message contains nothing of the request, the answer or the key.

    code         permanent: bad_request, unauthorized, model_not_found, parameter_refused, no_tools, context_too_long,
                 insufficient_quota, refused (content filter), no_room (the cap was spent on reasoning),
                 no_embeddings, no_transcription, too_large, not_configured;
                 retryable: rate_limited, overloaded, http_503 (and other 5xx), timeout, connect (the request was not
                 sent), cut_off (the connection broke afterwards), provider_error (an error within an answer),
                 bad_answer (malformed or empty), reasoning_shown (a stream turned out to be reasoning)
    retryable    True if another attempt can succeed
    retry_after  seconds to wait, if the server named them
    detail       the provider's own code or parameter, for staff
    learned      what the call taught of the model before it failed
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool,
        retry_after: float | None = None,
        detail: str = "",
        learned: tuple[Fact, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.detail = detail
        self.learned = learned
