"""The answers of a client's own agent: checked as strictly as the tool calls of a model, and turned into a reply.

The same form comes as the answer to a request, as the end of a stream, and by a callback. docs/own-agent.md lists its
fields; others are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from channels_out.given_files import GivenFile, InvalidFileError, read_files
from conversations.engines.contract import (
    ASK_FOR_HUMAN,
    END_CONVERSATION,
    OFFER_CHOICES,
    OPT_OUT,
    PendingStep,
    ToolAction,
    ToolCall,
)
from conversations.engines.tools import STREAMED_TOOLS, Toolbox
from memory.text import storable

MOST_MESSAGES = 20
LONGEST_TEXT = 100_000  # characters of all messages together, as the API's
PARAGRAPH = "\n\n"  # between two messages

_STREAMED = {tool["function"]["name"] for tool in STREAMED_TOOLS}


class InvalidAnswerError(Exception):
    """An answer is invalid. The message is a sentence for staff and for who writes the agent; it quotes no text."""


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """A valid answer.

    text            the messages as paragraphs of one text; '' if it says nothing
    tool_actions    the steps, topic, goal, end and hand-over that it asks for
    tool_calls      the same for the record
    files           at URLs, to go after the text
    later           there is no answer yet: the agent will call back
    """

    text: str = ""
    tool_actions: tuple[ToolAction, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    files: tuple[GivenFile, ...] = ()
    later: bool = False


def parse(answer: Any, steps: Sequence[PendingStep], *, in_copilot: bool) -> AgentAnswer:
    """Return the answer in its parts. Raises InvalidAnswerError.

    steps: those that the agent may complete or cancel
    in_copilot: the conversation is its user's own, so `topic` and `end` are ignored
    """
    if not isinstance(answer, Mapping):
        raise InvalidAnswerError("The answer must be a JSON object.")
    given = {name: value for name, value in answer.items() if value is not None}
    text, requested = _text(given.get("messages", [])), list(_requested(given))
    files = _files(given.get("attachments", []))
    if _flag(given, "later"):
        if text or requested or files:
            raise InvalidAnswerError("An answer with later has nothing else: call back with the rest.")
        return AgentAnswer(later=True)
    box = Toolbox(steps)
    for field, name, arguments in requested:
        if in_copilot and name not in _STREAMED:
            continue
        if not box.call(name, json.dumps(arguments)):
            raise InvalidAnswerError(f"{field}: {box.calls[-1].answer}")
    return AgentAnswer(text, tuple(box.tool_actions), tuple(box.calls), files)


def _files(value: Any) -> tuple[GivenFile, ...]:
    try:
        return read_files(value)
    except InvalidFileError as error:
        raise InvalidAnswerError(f"attachments: {error}") from None


def _text(messages: Any) -> str:
    if not isinstance(messages, list) or not all(isinstance(each, str) for each in messages):
        raise InvalidAnswerError("messages must be a list of strings.")
    if len(messages) > MOST_MESSAGES:
        raise InvalidAnswerError(f"messages must have at most {MOST_MESSAGES} entries.")
    text = PARAGRAPH.join(said for each in messages if (said := storable(each).strip()))
    if len(text) > LONGEST_TEXT:
        raise InvalidAnswerError(f"messages must have at most {LONGEST_TEXT:,} characters together.")
    return text


def _requested(given: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the field, the name and the arguments of each action, unchecked."""
    steps = given.get("steps", {})
    if not isinstance(steps, Mapping):
        raise InvalidAnswerError("steps must be an object with the lists add, complete and cancel.")
    for field, name, argument in (
        ("complete", "complete_step", "step_id"),
        ("cancel", "cancel_step", "step_id"),
        ("add", "add_step", "description"),
    ):
        entries = steps.get(field)
        if entries is not None and not isinstance(entries, list):
            raise InvalidAnswerError(f"steps.{field} must be a list.")
        for entry in entries or ():
            yield f"steps.{field}", name, {argument: entry}
    if "topic" in given:
        yield "topic", "set_topic", {"topic": given["topic"]}
    if "current_goal" in given:
        yield "current_goal", "set_current_goal", {"description": given["current_goal"]}
    yield from _of_the_reply(given)
    if _flag(given, "end"):
        yield "end", END_CONVERSATION, {}


def _of_the_reply(given: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what the reply offers, and what follows from it."""
    if "choices" in given:
        yield "choices", OFFER_CHOICES, {"options": given["choices"], "label": given.get("choices_label", "")}
    if "opt_out" in given:
        yield "opt_out", OPT_OUT, {"reason": _reason("opt_out", given["opt_out"])}
    if "hand_over" in given:
        yield "hand_over", ASK_FOR_HUMAN, {"reason": _reason("hand_over", given["hand_over"])}


def _reason(field: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidAnswerError(f'{field} must be an object, such as {{"reason": "wants a refund"}}.')
    return value.get("reason")


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidAnswerError(f"{name} must be true or false.")
    return value
