"""Turns a provider's answer, in whatever dialect, into a Completion: the end of every dialect, whole or streamed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from memory.language_models import capabilities
from memory.language_models.contract import (
    Completion,
    CompletionRequest,
    Fact,
    LLMError,
    ModelAccess,
    RequestedToolCall,
)
from memory.language_models.visible_text import VisibleText, visible
from memory.text import estimate_tokens, storable

LONGEST_TEXT = 200_000  # characters of a streamed answer; the rest is not read
MOST_CALLS = 100  # of tools, in one answer
MESSAGE_OVERHEAD = 4  # tokens
LONGEST_MODEL = 100

STOP, LENGTH, REFUSED, FILTERED, ERROR = "stop", "length", "refused", "filtered", "error"


@dataclass(slots=True)
class Answer:
    """An answer as a dialect read it, before anything of it was judged.

    text        as the model wrote it, reasoning and all; of a stream: the visible part
    refusal     the text in which the model refuses
    finish      STOP, LENGTH, REFUSED, FILTERED, ERROR, or "" if the answer does not say that it is complete
    given       the answer in the provider's form, for the next round
    """

    text: str = ""
    refusal: str = ""
    finish: str = ""
    calls: list[RequestedToolCall] = field(default_factory=list)
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    probabilities: Sequence[Any] = ()
    given: Any = None


class Reader(Protocol):
    """Reads the events of one streamed answer."""

    def read(self, event: Mapping[str, Any]) -> str:
        """Return the text in the event, as the model wrote it. Raises LLMError for an error in the stream."""

    def answer(self) -> Answer:
        """Return the whole answer; its `text` is not read."""


class Dialect(Protocol):
    """The protocol of one kind of providers."""

    path: str

    def body(self, request: CompletionRequest, access: ModelAccess, *, stream: bool) -> dict[str, Any]:
        """Return the request's body, before what is known of the model is applied."""

    def parse(self, data: Mapping[str, Any]) -> Answer:
        """Return a whole answer. Raises LookupError, TypeError, ValueError or AttributeError if it is none."""

    def reader(self) -> Reader:
        """Return a reader for one stream."""


# --- the end of every dialect ----------------------------------------------------------------------------------------
def whole(answer: Answer, request: CompletionRequest, access: ModelAccess) -> Completion:
    """Return the completion of an answer that came as a whole. Raises LLMError."""
    found = visible(storable(answer.text), names_of_tools(request), cut=answer.finish == LENGTH)
    learned = capabilities.unmarked_reasoning(access.known, seen=found.unmarked)
    return _completion(answer, found.text, found.calls, request, access, learned)


def streamed(
    answer: Answer, text: str, found: VisibleText, request: CompletionRequest, access: ModelAccess
) -> Completion:
    """Return the completion of a streamed answer of which `text` was shown. Raises LLMError."""
    if not answer.finish:
        raise LLMError("The model's stream ended before its end.", code="cut_off", retryable=True)
    learned = capabilities.unmarked_reasoning(access.known, seen=found.is_stray or found.is_unmarked)
    return _completion(answer, text, found.calls, request, access, learned)


def names_of_tools(request: CompletionRequest) -> set[str]:
    """Return the names of the tools that are offered."""
    return {tool["function"]["name"] for tool in request.tools}


def _completion(
    answer: Answer,
    text: str,
    written: Sequence[tuple[str, str]],
    request: CompletionRequest,
    access: ModelAccess,
    learned: tuple[Fact, ...],
) -> Completion:
    if answer.finish == FILTERED:
        raise LLMError("The provider's content filter refused.", code="refused", retryable=False)
    if answer.finish == ERROR:
        raise LLMError("The provider reported an error.", code="provider_error", retryable=True)
    learned += capabilities.ratio_learned(answer.tokens_in, _estimated(request), access.known)
    calls = tuple(answer.calls)
    if not calls and written:
        calls = tuple(RequestedToolCall(f"call_{number}", *each) for number, each in enumerate(written, 1))
    calls = calls if request.may_call and request.tools else ()
    refused = answer.finish == REFUSED
    if not text and not calls and answer.refusal.strip():
        text, refused = storable(answer.refusal).strip(), True
    if not text and not calls:
        raise _nothing(answer, request, access)
    return Completion(
        text=text,
        model=storable(answer.model)[:LONGEST_MODEL] or access.model,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        tokens_cached=min(answer.tokens_cached, answer.tokens_in),
        finish_reason=REFUSED if refused else LENGTH if answer.finish == LENGTH else STOP,
        tool_calls=calls,
        confidence=confidence_of(answer.probabilities),
        given=answer.given,
        learned=learned,
    )


def _nothing(answer: Answer, request: CompletionRequest, access: ModelAccess) -> LLMError:
    """Return the error for an answer without words: refused, spent on reasoning, or nothing at all."""
    if answer.finish == REFUSED:
        return LLMError("The model refused and said nothing.", code="refused", retryable=False)
    if answer.finish != LENGTH:
        return LLMError("The model answered nothing.", code="bad_answer", retryable=True)
    fact = Fact(capabilities.OUTPUT_FACTOR, capabilities.LARGER, "the cap was spent on reasoning")
    is_news = request.max_tokens is not None and capabilities.OUTPUT_FACTOR not in access.known
    return LLMError(
        "The model spent the whole cap of its answer on reasoning.",
        code="no_room",
        retryable=False,
        learned=(fact,) if is_news else (),
    )


def _estimated(request: CompletionRequest) -> int:
    """Return the estimated tokens of the prompt; 0 if it has parts that cannot be estimated."""
    if request.pictures or request.rounds:
        return 0
    tools = estimate_tokens(json.dumps(list(request.tools))) if request.tools else 0
    return tools + sum(estimate_tokens(message["content"]) + MESSAGE_OVERHEAD for message in request.messages)


def holds_calls(completion: Completion, name: str) -> bool:
    """Return whether the answer in the provider's form has all of its tool calls, by the key `name` of their ids.

    It has not where another provider gave it, or where the model wrote its calls as text.
    """
    given = completion.given if isinstance(completion.given, list) else []
    return {call.id for call in completion.tool_calls} <= {item.get(name) for item in given}


# --- parts of answers ------------------------------------------------------------------------------------------------
def count(usage: Any, *path: str) -> int:
    """Return the number of tokens that `usage` has at the path; 0 if it has no valid one."""
    for name in path:
        usage = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(usage, float) and math.isfinite(usage):
        usage = int(usage)
    return usage if isinstance(usage, int) and not isinstance(usage, bool) and 0 <= usage < 2**31 else 0


def confidence_of(probabilities: Sequence[Any]) -> float | None:
    """Return the confidence from 0 to 1: the geometric mean; None if the server gave no valid probabilities."""
    try:
        logarithms = [float(each["logprob"]) for each in probabilities]
        return min(math.exp(sum(logarithms) / len(logarithms)), 1.0)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None


def text_of(value: Any) -> str:
    """Return the value if it is a text, or the texts of a list of parts (Mistral); reasoning parts have none."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    texts = [part if isinstance(part, str) else part.get("text") for part in parts if isinstance(part, str | dict)]
    return "".join(text for text in texts if isinstance(text, str))


def call(identifier: Any, name: Any, arguments: Any, number: int) -> RequestedToolCall | None:
    """Return a tool call as a server gave it, or None if it names no tool.

    A missing id is made up; arguments may be an object instead of its JSON.
    """
    if not isinstance(name, str) or not name:
        return None
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments) if isinstance(arguments, dict) else ""
    identifier = identifier if isinstance(identifier, str) and identifier else f"call_{number}"
    return RequestedToolCall(storable(identifier), storable(name), storable(arguments))
