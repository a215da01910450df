"""Tries an assistant's models: what a reply needs of a model is asked of it, one check after the other.

Each check says what was seen, in plain words, and what to change. What the models teach is kept, as after a reply.
Nothing of a conversation is read or written, and the provider is paid for the answers.
"""

from __future__ import annotations

import json
import math
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext

from conversations.models import Assistant, Client
from conversations.services.core.errors import TooManyError
from conversations.services.core.sql import release_connection
from conversations.services.replies.failures import explain_with_detail
from conversations.services.tenants import model_providers, sign_in_limits
from conversations.words import lazy as _
from conversations.words import shown
from memory import event_loop, summaries
from memory.context import MINIMUM_BUDGET
from memory.language_models import asking, capabilities, choosing, transcription
from memory.language_models.choosing import Purpose
from memory.language_models.contract import (
    Completion,
    CompletionRequest,
    Fact,
    LLMError,
    ModelAccess,
    Picture,
    ToolRound,
)
from memory.records import TranscriptEntry
from memory.text import estimate_tokens, one_line

CHECKS_AN_HOUR = 60  # of a user
LONGEST_CHECK = timedelta(minutes=5)
STREAM_SECONDS = 120.0
SHOWN = 120  # characters of an answer
MOST_ROUNDS = 4
PRICE = "41.70"
CODE_WORD = "heliotrope"
FILLER = "This sentence only fills the prompt, so that one can see how much of it the model takes. "


class Check(StrEnum):
    """The checks, in their order."""

    TEXT = "text"
    TOOLS = "tools"
    STREAM = "stream"
    SUMMARY = "summary"
    LONG_PROMPT = "long_prompt"
    PICTURE = "picture"
    VOICE = "voice"


TITLES = {
    Check.TEXT: _("Plain text"),
    Check.TOOLS: _("Two rounds of tools"),
    Check.STREAM: _("Streaming"),
    Check.SUMMARY: _("A summary"),
    Check.LONG_PROMPT: _("A long prompt"),
    Check.PICTURE: _("A picture"),
    Check.VOICE: _("A recording"),
}
OF_ASSISTANTS = tuple(check for check in Check if check is not Check.VOICE)
USUAL = tuple(check for check in OF_ASSISTANTS if check is not Check.PICTURE)


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one check of one model.

    seen        what happened, in plain words
    change      what to do about it; '' if nothing
    learned     what the check taught of the model, in plain words
    """

    check: Check
    model: str
    passed: bool
    seen: str
    change: str = ""
    learned: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Return the name of the check."""
        return str(TITLES[self.check])


@dataclass(frozen=True, slots=True)
class _Seen:
    """The result of asking. `facts`: what it taught of the model."""

    passed: bool
    text: str
    change: str = ""
    facts: tuple[Fact, ...] = ()


def try_assistant(assistant: Assistant, checks: Sequence[Check] = USUAL) -> Iterator[Trial]:
    """Yield the result of each check of each of the assistant's models, as they come. Do not call it in a transaction.

    An assistant whose replies are not written by a language model has one result, which says so.
    """
    for number, check in enumerate(checks):
        for trial in run_check(assistant, check):
            yield trial
            if number == 0 and trial.change == _NOT_A_MODEL:
                return


@contextmanager
def within_limits(user_id: int, now: datetime) -> Iterator[None]:
    """Let the user run one check in the block. Raises TooManyError while another one runs, or after too many.

    A check whose process dies counts as running for LONGEST_CHECK.
    """
    running = sign_in_limits.counter("check", str(user_id))
    if seconds := sign_in_limits.count(running, 1, LONGEST_CHECK, now):
        sentence = gettext("Another check of yours is running. Wait until it is done.")
        raise TooManyError(sentence, retry_after=seconds, code="busy")
    try:
        checks = sign_in_limits.counter("checks", str(user_id))
        if seconds := sign_in_limits.count(checks, CHECKS_AN_HOUR, timedelta(hours=1), now):
            minutes = math.ceil(seconds / 60)
            sentence = gettext("You have run %(checks)s checks within an hour. Go on in %(minutes)s minutes.") % {
                "checks": CHECKS_AN_HOUR,
                "minutes": minutes,
            }
            raise TooManyError(sentence, retry_after=seconds)
        yield
    finally:
        sign_in_limits.forget(running)


def is_by_model(assistant: Assistant) -> bool:
    """Return whether a language model writes the assistant's replies."""
    return assistant.engine in (Assistant.EngineName.AUTO, Assistant.EngineName.OPENAI)


def run_check(assistant: Assistant, check: Check) -> list[Trial]:
    """Return the results of one check: one for each of the assistant's models. Do not call it in a transaction."""
    if not is_by_model(assistant):
        seen = gettext("The engine %(engine)s writes the replies, and no language model.") % {
            "engine": assistant.engine
        }
        return [Trial(check, "", passed=False, seen=seen, change=str(_NOT_A_MODEL))]
    if check is Check.SUMMARY:
        access = choosing.access_for(assistant.client_id, Purpose.SUMMARIES)
        accesses: tuple[ModelAccess, ...] = (access,) if access else ()
    else:
        accesses = model_providers.accesses_of(assistant)
    if not accesses:
        seen, change = (
            gettext("No model provider is configured."),
            gettext("Add a model provider, or set OPENAI_API_KEY."),
        )
        return [Trial(check, assistant.model, passed=False, seen=seen, change=change)]
    return [_tried(check, access, partial(_CHECKS[check], access, assistant)) for access in accesses]


_NOT_A_MODEL = _("Try such an assistant in the channel simulator.")


def _tried(check: Check, access: ModelAccess, ask: Callable[[], _Seen]) -> Trial:
    began = time.monotonic()
    release_connection()
    try:
        seen = ask()
        code = ""
    except LLMError as error:
        code = error.code
        sentence = shown(explain_with_detail(error.code, error.detail))
        said, _, change = sentence.partition(". ")
        seen = _Seen(passed=False, text=f"{said.rstrip('.')}.", change=change, facts=error.learned)
    model_providers.learn(access, seen.facts)
    model_providers.note_outcome(access, code)
    return Trial(
        check,
        access.model,
        passed=seen.passed,
        seen=seen.text,
        change=seen.change,
        learned=tuple(capabilities.describe(fact.name, fact.value) for fact in seen.facts),
        seconds=round(time.monotonic() - began, 1),
    )


# --- the checks ------------------------------------------------------------------------------------------------------
def _request(assistant: Assistant, text: str, **more: Any) -> CompletionRequest:
    messages = [{"role": "system", "content": "You are being tried out."}, {"role": "user", "content": text}]
    settings = {
        "temperature": assistant.temperature,
        "max_tokens": assistant.max_tokens,
        "reasoning_effort": assistant.reasoning_effort,
    }
    return CompletionRequest(messages, **{**settings, **more})


def _text(access: ModelAccess, assistant: Assistant) -> _Seen:
    answer = asking.complete(access, _request(assistant, "Say hello in one short sentence."))
    return _answered(answer)


def _answered(answer: Completion) -> _Seen:
    said = gettext("It said: “%(text)s” (%(tokens_in)s tokens in, %(tokens_out)s out).") % {
        "text": one_line(answer.text, SHOWN),
        "tokens_in": answer.tokens_in,
        "tokens_out": answer.tokens_out,
    }
    if answer.finish_reason == "length":
        seen, change = gettext("%(said)s It was cut off."), gettext("Raise the assistant's most tokens.")
        return _Seen(False, seen % {"said": said}, change, answer.learned)
    if answer.finish_reason == "refused":
        seen, change = gettext("%(said)s That is a refusal."), gettext("Choose another model.")
        return _Seen(False, seen % {"said": said}, change, answer.learned)
    return _Seen(True, said, facts=answer.learned)


def _function(name: str, description: str, argument: str) -> Mapping[str, Any]:
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string"}},
        "required": [argument],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_TOOLS = (
    _function("find_article", "Returns the number of the article with this name.", "name"),
    _function("price_of", "Returns the price of the article with this number.", "number"),
)
_ANSWERS = {"find_article": "The number is K-17.", "price_of": f"The price is {PRICE}."}


def _tools(access: ModelAccess, assistant: Assistant) -> _Seen:
    if not assistant.uses_tools:
        return _Seen(True, gettext("The assistant uses no tools: not tried."))
    asked = "What does the article “kettle” cost? Find its number with one tool, then its price with the other."
    rounds: list[ToolRound] = []
    called: list[str] = []
    learned: tuple[Fact, ...] = ()
    while True:
        request = _request(assistant, asked, tools=_TOOLS, rounds=tuple(rounds), may_call=len(rounds) < MOST_ROUNDS)
        answer = asking.complete(access, request)
        learned += answer.learned
        access = access.learning(answer.learned)
        if not answer.tool_calls or len(rounds) >= MOST_ROUNDS:
            break
        called += [call.name for call in answer.tool_calls]
        answers = tuple(_ANSWERS.get(call.name, "There is no such tool.") for call in answer.tool_calls)
        rounds.append(ToolRound(answer, answers))
    if access.known.get(capabilities.TOOLS) is False:
        change = gettext("Turn the assistant's tools off, or choose another model.")
        return _Seen(False, gettext("The model has no tools."), change, learned)
    names = ", ".join(called) or gettext("none")
    if {"find_article", "price_of"} <= set(called) and PRICE in answer.text:
        seen = gettext("It called %(names)s in %(rounds)s rounds, and used their answers.")
        return _Seen(True, seen % {"names": names, "rounds": len(rounds)}, facts=learned)
    seen = gettext("It called %(names)s, and said: “%(text)s”") % {
        "names": names,
        "text": one_line(answer.text, SHOWN),
    }
    return _Seen(False, seen, gettext("Do not count on tools with this model, or choose another one."), learned)


def _stream(access: ModelAccess, assistant: Assistant) -> _Seen:
    request = _request(assistant, "Count from one to ten in words, separated by commas.")

    async def read() -> tuple[int, float, Completion]:
        began, first, pieces = time.monotonic(), 0.0, 0
        async for piece in asking.stream(access, request):
            if isinstance(piece, Completion):
                return pieces, first, piece
            first = first or time.monotonic() - began
            pieces += 1
        raise LLMError("The stream ended without an answer.", code="cut_off", retryable=True)

    try:
        pieces, first, answer = event_loop.run(read(), STREAM_SECONDS)
    except TimeoutError:
        raise LLMError("The stream did not end.", code="timeout", retryable=True) from None
    seen = gettext("%(pieces)s pieces came, the first after %(seconds)s s.") % {
        "pieces": pieces,
        "seconds": number_format(first, 1),
    }
    if pieces < 2:
        change = gettext(
            "The server sends the whole answer at once. Look for a setting of it or of a proxy that buffers."
        )
        return _Seen(False, seen, change, answer.learned)
    if not answer.tokens_out:
        seen = gettext("%(seen)s The server counts no tokens.") % {"seen": seen}
    return _Seen(True, seen, facts=answer.learned)


def _summary(access: ModelAccess, _assistant: Assistant) -> _Seen:
    at = datetime.now(UTC)
    said = ["Hello, my kettle leaks.", "I am sorry. Shall I send a new one?", "Yes, to the old address please."]
    entries = [
        TranscriptEntry(position=number, role="ai" if number % 2 == 0 else "user", content=text, at=at)
        for number, text in enumerate(said, 1)
    ]
    made = summaries.summarise(access, entries, goal="Handle inbound enquiry")
    shown = f"“{one_line(made.text, SHOWN)}”"
    if made.kind != summaries.LLM:
        seen = gettext("The model wrote none: %(shown)s") % {"shown": shown}
        return _Seen(False, seen, gettext("Name another model for the client's summaries."))
    return _Seen(True, gettext("It wrote: %(shown)s") % {"shown": shown})


def _long_prompt(access: ModelAccess, assistant: Assistant) -> _Seen:
    ratio = max(float(access.known.get(capabilities.TOKEN_RATIO, 1.0)), 1.0)
    room = int(max(assistant.context_budget, MINIMUM_BUDGET) / ratio) - 200
    filler = FILLER * max(room // estimate_tokens(FILLER), 1)
    asked = f"The code word is {CODE_WORD}.\n\n{filler}\n\nAnswer with the code word alone."
    answer = asking.complete(access, _request(assistant, asked))
    counts = {"tokens": answer.tokens_in or gettext("an uncounted number of"), "estimate": estimate_tokens(asked)}
    if CODE_WORD not in answer.text.lower():
        seen = gettext("It took %(tokens)s tokens (by estimate %(estimate)s), and did not know their beginning.")
        change = gettext(
            "The server may drop the beginning of long prompts. Lower the context budget, or raise its window."
        )
        return _Seen(False, seen % counts, change, answer.learned)
    seen = gettext("It took %(tokens)s tokens (by estimate %(estimate)s), and knew their beginning.")
    return _Seen(True, seen % counts, facts=answer.learned)


def _picture(access: ModelAccess, assistant: Assistant) -> _Seen:
    request = _request(assistant, "Which colour is this picture? Answer in one English word.", pictures=[_red()])
    try:
        answer = asking.complete(access, request)
    except LLMError as error:
        if error.code not in ("bad_request", "parameter_refused"):
            raise
        fact = Fact(capabilities.PICTURES, False, error.detail or error.code)
        change = gettext("Choose a model that does, if people send some.")
        return _Seen(False, gettext("It takes no pictures."), change, (fact,))
    said = gettext("It said: “%(text)s” The picture is red.") % {"text": one_line(answer.text, SHOWN)}
    if "red" in answer.text.lower():
        return _Seen(True, said, facts=answer.learned)
    return _Seen(False, said, gettext("Choose a model that sees pictures."), answer.learned)


def _red() -> Picture:
    """Return a red square of 32 pixels as PNG (W3C, PNG Specification)."""
    size = 32

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = block(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\xff\0\0" * size) * size)
    return Picture("image/png", b"\x89PNG\r\n\x1a\n" + head + block(b"IDAT", rows) + block(b"IEND", b""))


_CHECKS: Mapping[Check, Callable[[ModelAccess, Assistant], _Seen]] = {
    Check.TEXT: _text,
    Check.TOOLS: _tools,
    Check.STREAM: _stream,
    Check.SUMMARY: _summary,
    Check.LONG_PROMPT: _long_prompt,
    Check.PICTURE: _picture,
}


def try_transcription(client: Client, audio: bytes, name: str) -> Trial:
    """Return how the client's provider of transcriptions writes down the recording. Do not call it in a transaction."""
    access = model_providers.access_for(client.pk, Purpose.TRANSCRIPTION)
    if access is None:
        seen, change = (
            gettext("No model provider is configured."),
            gettext("Add a model provider, or set OPENAI_API_KEY."),
        )
        return Trial(Check.VOICE, "", passed=False, seen=seen, change=change)

    def heard() -> _Seen:
        text = transcription.transcribe(access, audio, name)
        if not text:
            return _Seen(False, gettext("It heard nothing."), gettext("Try a recording in which somebody speaks."))
        return _Seen(True, gettext("It wrote: %(shown)s") % {"shown": f"“{one_line(text, SHOWN)}”"})

    return _tried(Check.VOICE, access, heard)


def as_json(trial: Trial) -> str:
    """Return a trial as one line of JSON."""
    values = {
        "check": trial.check.value,
        "model": trial.model,
        "passed": trial.passed,
        "seen": trial.seen,
        "change": trial.change,
        "learned": list(trial.learned),
        "seconds": trial.seconds,
    }
    return json.dumps(values, ensure_ascii=False)
