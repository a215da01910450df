"""Asks a model: as a whole or as a stream, in its provider's dialect, adapting the request to what the model takes.

A request that is refused because of one parameter is sent again without it, or with it renamed; what that taught is
returned with the completion (`learned`), for the caller to keep. Safe to call from many threads.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from memory.language_models import answers, capabilities, errors, transport
from memory.language_models.answers import Answer, Dialect
from memory.language_models.anthropic_messages import AnthropicMessages
from memory.language_models.chat_completions import ChatCompletions
from memory.language_models.contract import Completion, CompletionRequest, Fact, Kind, LLMError, ModelAccess
from memory.language_models.responses import Responses
from memory.language_models.transport import Stream, post
from memory.language_models.visible_text import VisibleText
from memory.text import storable

MOST_ADAPTATIONS = 6  # of one request: a model refuses one parameter at a time
LONGEST_SECONDS = 900.0  # of a whole stream; a model that never ends is cut off
_ADAPTABLE = {"parameter_refused", "no_tools", "no_room", "bad_request"}
_DIALECTS: Mapping[Kind, Dialect] = {
    Kind.OPENAI: Responses(),
    Kind.COMPATIBLE: ChatCompletions(),
    Kind.ANTHROPIC: AnthropicMessages(),
}


def complete(access: ModelAccess, request: CompletionRequest, *, seconds: float | None = None) -> Completion:
    """Return one completion, in one attempt beside adaptations. Raises LLMError.

    seconds: the time for everything; None means the provider's time
    """
    transport.warm_up(access)
    until = time.monotonic() + (access.seconds if seconds is None else seconds)
    learned: tuple[Fact, ...] = ()
    while True:
        try:
            completion = _complete_once(access, request, max(until - time.monotonic(), 0.001))
            return replace(completion, learned=learned + completion.learned)
        except LLMError as error:
            learned = _adapted(error, learned)
            access = access.learning(learned)


async def stream(access: ModelAccess, request: CompletionRequest) -> AsyncIterator[str | Completion]:
    """Yield the pieces of one completion as they come, then the Completion: all pieces together, and its tool calls.

    The provider's time is the longest wait for the first piece, and between two. Runs on an event loop; the deadlines
    are asyncio's, which cancel whatever is being waited on. Raises LLMError: `cut_off` if the stream ends without
    saying that it is complete, `reasoning_shown` if what was yielded turned out to be reasoning.
    """
    learned: tuple[Fact, ...] = ()
    if not transport.is_warm(access):
        await asyncio.to_thread(transport.warm_up, access)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                try:
                    async for piece in _stream_once(access, request):
                        if isinstance(piece, Completion):
                            piece = replace(piece, learned=learned + piece.learned)
                        yield piece
                except LLMError as error:
                    learned = _adapted(error, learned)
                    access = access.learning(learned)
                else:
                    return
    except TimeoutError:
        raise LLMError("The model stopped answering.", code="timeout", retryable=True, learned=learned) from None


def _adapted(error: LLMError, learned: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """Return all that was learned, if the request can be sent again as it taught. Raises the error otherwise."""
    known = {(fact.name, json.dumps(fact.value)) for fact in learned}
    news = tuple(fact for fact in error.learned if (fact.name, json.dumps(fact.value)) not in known)
    if not news or error.code not in _ADAPTABLE or len(learned) >= MOST_ADAPTATIONS:
        error.learned = learned + news
        raise error
    return learned + news


def _body(access: ModelAccess, request: CompletionRequest, *, stream: bool) -> tuple[Dialect, dict[str, Any]]:
    by_responses = access.known.get(capabilities.API) == capabilities.RESPONSES
    dialect = _DIALECTS[Kind.OPENAI if by_responses else access.kind]
    return dialect, capabilities.adapted(dialect.body(request, access, stream=stream), access.known, access.body)


def _complete_once(access: ModelAccess, request: CompletionRequest, seconds: float) -> Completion:
    dialect, body = _body(access, request, stream=False)
    content = post(access, dialect.path, body, seconds)
    answer: Answer | None = None
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = json.loads(content)
        if isinstance(data, dict) and _is_error(data):
            raise errors.in_answer(data)
        answer = dialect.parse(data)
    if answer is None:
        raise LLMError("The provider's answer is not one of a model.", code="bad_answer", retryable=True)
    return answers.whole(answer, request, access)


async def _stream_once(access: ModelAccess, request: CompletionRequest) -> AsyncIterator[str | Completion]:
    dialect, body = _body(access, request, stream=True)
    reader = dialect.reader()
    visible = VisibleText(
        answers.names_of_tools(request), unmarked=bool(access.known.get(capabilities.REASONS_UNMARKED))
    )
    shown, length = "", 0
    opened = Stream(access, dialect.path, body)
    is_cut = False
    try:
        async with asyncio.timeout(access.seconds):
            await opened.open()
        while True:
            async with asyncio.timeout(access.seconds):
                event = await opened.next()
            if event is None:
                break
            text = storable(_read(reader, event))[: answers.LONGEST_TEXT - length]
            length += len(text)
            if piece := visible.feed(text):
                shown += piece
                yield piece
            _no_reasoning_shown(visible, shown, access)
            if length >= answers.LONGEST_TEXT:
                is_cut = True
                break
    finally:
        await opened.close()
    answer = _answer(reader)
    if is_cut:
        answer.finish = answers.LENGTH
    rest = visible.end(cut=answer.finish == answers.LENGTH)
    _no_reasoning_shown(visible, shown, access)
    if rest:
        shown += rest
        yield rest
    if not shown and answer.refusal.strip():
        yield storable(answer.refusal).strip()
    yield answers.streamed(answer, shown, visible, request, access)


def _no_reasoning_shown(visible: VisibleText, shown: str, access: ModelAccess) -> None:
    """Raise LLMError if what was shown turned out to be reasoning: the next attempt holds it back."""
    if visible.is_stray and shown:
        sentence = "The model's text began with reasoning that was not marked."
        learned = capabilities.unmarked_reasoning(access.known, seen=True)
        raise LLMError(sentence, code="reasoning_shown", retryable=True, learned=learned)


def _is_error(data: Mapping[str, Any]) -> bool:
    """Return whether an answer or an event holds an error; some servers put half a text beside it."""
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    return bool(data.get("error")) and choice.get("finish_reason") != "stop"


def _read(reader: Any, event: object) -> str:
    if not isinstance(event, dict):
        return ""
    if _is_error(event):
        raise errors.in_answer(event)
    try:
        text: str = reader.read(event)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return text


def _answer(reader: Any) -> Answer:
    try:
        answer: Answer = reader.answer()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer()
    return answer
