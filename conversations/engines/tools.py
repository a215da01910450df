"""What the model may do beside speaking: tools, as OpenAI's chat completions know them.

Each call is checked against the session as it was when the prompt was made, as strictly as the API checks its callers,
and what is wrong is answered to the model in a sentence. What is right becomes a Deed, which is done when the reply is
committed, or never.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conversations.engines.contract import ASK_FOR_HUMAN, END_CONVERSATION, Deed, PendingStep, ToolCall
from memory.text import storable

LONGEST_DESCRIPTION = 2_000  # characters, as the API's
LONGEST_TOPIC = 200
LONGEST_REASON = 200
LONGEST_ARGUMENTS = 10_000
MOST_CALLS = 20  # in a reply


class WrongCallError(Exception):
    """What is wrong with a call, in a sentence for the model."""


def _tool(name: str, description: str, /, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [each for each in properties if each != "reason"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_STEP = {"type": "integer", "description": "The number after the step, as in [step 7]."}


def _text(description: str, longest: int) -> dict[str, Any]:
    return {"type": "string", "description": description, "maxLength": longest}


TOOLS: Sequence[Mapping[str, Any]] = (
    _tool("complete_step", "A step of this conversation is done.", step_id=_STEP),
    _tool("cancel_step", "A step of this conversation will not be done.", step_id=_STEP),
    _tool(
        "add_step",
        "Something more is to be done in this conversation.",
        description=_text("What, in a few words.", LONGEST_DESCRIPTION),
    ),
    _tool("set_topic", "What this conversation is about.", topic=_text("A few words.", LONGEST_TOPIC)),
    _tool(
        "set_current_goal",
        "What the person wants to achieve now.",
        description=_text("In a sentence.", LONGEST_DESCRIPTION),
    ),
    _tool(
        ASK_FOR_HUMAN,
        "The person wants a human, or you cannot help: a colleague takes over after your reply, which says so.",
        reason=_text("Why, for the colleague.", LONGEST_REASON),
    ),
    _tool(
        END_CONVERSATION,
        "The person has said goodbye and wants nothing more: the conversation ends after your reply.",
        reason=_text("How one can tell.", LONGEST_REASON),
    ),
)


# A session of the copilot's is the user's: its title is theirs, and it goes on for as long as they like.
_USERS_OWN = {"set_topic", END_CONVERSATION}
STREAMED_TOOLS = tuple(tool for tool in TOOLS if tool["function"]["name"] not in _USERS_OWN)


class Toolbox:
    """The tools for one reply: answers the model's calls, and keeps what is to be done."""

    def __init__(self, steps: Sequence[PendingStep], tools: Sequence[Mapping[str, Any]] = TOOLS) -> None:
        self._pending = {step.id: step for step in steps}
        self._moved: dict[int, str] = {}
        self.deeds: list[Deed] = []
        self.calls: list[ToolCall] = []
        self._checks: Mapping[str, Callable[[dict[str, Any]], str]] = {
            "complete_step": lambda given: self._move(given, "complete_step", "complete"),
            "cancel_step": lambda given: self._move(given, "cancel_step", "cancelled"),
            "add_step": self._add_step,
            "set_topic": self._set_topic,
            "set_current_goal": self._set_goal,
            ASK_FOR_HUMAN: lambda given: self._once(given, ASK_FOR_HUMAN, "A colleague takes over after your reply."),
            END_CONVERSATION: lambda given: self._once(given, END_CONVERSATION, "It ends after your reply."),
        }
        self._offered = [tool["function"]["name"] for tool in tools]

    def call(self, name: str, arguments: str) -> bool:
        """Check one call, and note it with its answer in `calls`. Whether it was right; it never raises."""
        try:
            answer, right = self._checked(name, arguments), True
        except WrongCallError as wrong:
            answer, right = str(wrong), False
        self.calls.append(ToolCall(storable(name)[:100], storable(arguments)[:LONGEST_ARGUMENTS], answer))
        return right

    def _checked(self, name: str, arguments: str) -> str:
        if len(self.calls) >= MOST_CALLS:
            raise WrongCallError(f"At most {MOST_CALLS} calls are possible in a reply. Write your reply now.")
        if name not in self._offered:
            raise WrongCallError(f"There is no such tool; there are {', '.join(self._offered)}.")
        return self._checks[name](_object(arguments))

    def _move(self, given: dict[str, Any], tool: str, status: str) -> str:
        _only(given, "step_id")
        number = given.get("step_id")
        if isinstance(number, bool) or not isinstance(number, int) or number not in self._pending:
            known = ", ".join(str(each) for each in self._pending) or "none"
            raise WrongCallError(f"step_id must be the number of a pending step. Pending: {known}.")
        before = self._moved.get(number)
        if before not in (None, status):
            raise WrongCallError(f"Step {number} is {before}, and that is final.")
        if before is None:
            self._moved[number] = status
            self.deeds.append(Deed(tool, {"step_id": number}))
        return f"Step {number} is {status}."

    def _add_step(self, given: dict[str, Any]) -> str:
        _only(given, "description")
        self.deeds.append(Deed("add_step", {"description": _words(given, "description", LONGEST_DESCRIPTION)}))
        return "The step is added."

    def _set_topic(self, given: dict[str, Any]) -> str:
        _only(given, "topic")
        self.deeds.append(Deed("set_topic", {"topic": _words(given, "topic", LONGEST_TOPIC)}))
        return "The topic is set."

    def _set_goal(self, given: dict[str, Any]) -> str:
        _only(given, "description")
        goal = _words(given, "description", LONGEST_DESCRIPTION)
        self.deeds.append(Deed("set_current_goal", {"description": goal}))
        return "The current goal is set."

    def _once(self, given: dict[str, Any], name: str, answer: str) -> str:
        _only(given, "reason")
        reason = _words(given, "reason", LONGEST_REASON) if given.get("reason") else ""
        if name not in [deed.name for deed in self.deeds]:
            self.deeds.append(Deed(name, {"reason": reason}))
        return answer


def _object(arguments: str) -> dict[str, Any]:
    if len(arguments) > LONGEST_ARGUMENTS:
        raise WrongCallError("The arguments are too long.")
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        raise WrongCallError("The arguments must be a JSON object.") from None
    if not isinstance(given, dict):
        raise WrongCallError("The arguments must be a JSON object.")
    return given


def _only(given: dict[str, Any], *names: str) -> None:
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise WrongCallError(f"There is no argument {storable(unknown[0])[:40]!r}; there is {', '.join(names)}.")


def _words(given: dict[str, Any], name: str, longest: int) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not storable(value).strip():
        raise WrongCallError(f"{name} must be a string that is not blank.")
    words = storable(value).strip()
    if len(words) > longest:
        raise WrongCallError(f"{name} must have at most {longest:,} characters.")
    return words
