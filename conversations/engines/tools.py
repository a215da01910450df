"""The tools that a model may call beside its reply, in the format of OpenAI's chat completions.

Each call is checked against the conversation at the time of the prompt, as strictly as the API checks its callers. An
invalid call is answered with a sentence for the model. A valid one becomes a ToolAction, which is applied when the
reply is committed, or never.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conversations.engines.contract import (
    ASK_FOR_HUMAN,
    END_CONVERSATION,
    PendingStep,
    ReplyRequest,
    ToolAction,
    ToolCall,
)
from memory.text import estimate_tokens, storable

LONGEST_DESCRIPTION = 2_000  # characters, as the API's
LONGEST_TOPIC = 200
LONGEST_REASON = 200
LONGEST_ARGUMENTS = 10_000
MAX_CALLS = 20  # in a reply


class InvalidToolCallError(Exception):
    """A tool call is invalid. The message is a sentence for the model."""


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


# A copilot conversation belongs to its user: only the user names it, and only the user ends it.
_USERS_OWN = {"set_topic", END_CONVERSATION}
STREAMED_TOOLS = tuple(tool for tool in TOOLS if tool["function"]["name"] not in _USERS_OWN)


def tokens_of(tools: Sequence[Mapping[str, Any]]) -> int:
    """Return the estimated tokens of the tools' descriptions, which a prompt has beside its messages."""
    return estimate_tokens(json.dumps(list(tools))) if tools else 0


def toolbox_of(request: ReplyRequest, *, streamed: bool) -> Toolbox:
    """Return the tools that the model may call for this reply."""
    if not request.tools:
        return Toolbox(request.steps, ())
    return Toolbox(request.steps, STREAMED_TOOLS if streamed else TOOLS)


class Toolbox:
    """Answers the model's tool calls for one reply, and collects its tool actions."""

    blocks = False  # whether a call may wait for the network

    def __init__(self, steps: Sequence[PendingStep], tools: Sequence[Mapping[str, Any]] = TOOLS) -> None:
        self.tools = tools
        self._pending = {step.id: step for step in steps}
        self._moved: dict[int, str] = {}
        self.tool_actions: list[ToolAction] = []
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
        """Check one call, add it with its answer to `calls`, and return whether it was valid. Never raises."""
        try:
            answer, valid = self._checked(name, arguments), True
        except InvalidToolCallError as error:
            answer, valid = str(error), False
        self.calls.append(ToolCall(storable(name)[:100], storable(arguments)[:LONGEST_ARGUMENTS], answer))
        return valid

    def _checked(self, name: str, arguments: str) -> str:
        if len(self.calls) >= MAX_CALLS:
            raise InvalidToolCallError(f"At most {MAX_CALLS} calls are possible in a reply. Write your reply now.")
        if name not in self._offered:
            raise InvalidToolCallError(f"There is no such tool; there are {', '.join(self._offered)}.")
        return self._checks[name](_object(arguments))

    def _move(self, given: dict[str, Any], tool: str, status: str) -> str:
        _only(given, "step_id")
        number = given.get("step_id")
        if isinstance(number, bool) or not isinstance(number, int) or number not in self._pending:
            known = ", ".join(str(each) for each in self._pending) or "none"
            raise InvalidToolCallError(f"step_id must be the number of a pending step. Pending: {known}.")
        before = self._moved.get(number)
        if before not in (None, status):
            raise InvalidToolCallError(f"Step {number} is {before}, and that is final.")
        if before is None:
            self._moved[number] = status
            self.tool_actions.append(ToolAction(tool, {"step_id": number}))
        return f"Step {number} is {status}."

    def _add_step(self, given: dict[str, Any]) -> str:
        _only(given, "description")
        self.tool_actions.append(
            ToolAction("add_step", {"description": _words(given, "description", LONGEST_DESCRIPTION)})
        )
        return "The step is added."

    def _set_topic(self, given: dict[str, Any]) -> str:
        _only(given, "topic")
        self.tool_actions.append(ToolAction("set_topic", {"topic": _words(given, "topic", LONGEST_TOPIC)}))
        return "The topic is set."

    def _set_goal(self, given: dict[str, Any]) -> str:
        _only(given, "description")
        goal = _words(given, "description", LONGEST_DESCRIPTION)
        self.tool_actions.append(ToolAction("set_current_goal", {"description": goal}))
        return "The current goal is set."

    def _once(self, given: dict[str, Any], name: str, answer: str) -> str:
        _only(given, "reason")
        reason = _words(given, "reason", LONGEST_REASON) if given.get("reason") else ""
        if name not in [action.name for action in self.tool_actions]:
            self.tool_actions.append(ToolAction(name, {"reason": reason}))
        return answer


def _object(arguments: str) -> dict[str, Any]:
    if len(arguments) > LONGEST_ARGUMENTS:
        raise InvalidToolCallError("The arguments are too long.")
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        raise InvalidToolCallError("The arguments must be a JSON object.") from None
    if not isinstance(given, dict):
        raise InvalidToolCallError("The arguments must be a JSON object.")
    return given


def _only(given: dict[str, Any], *names: str) -> None:
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise InvalidToolCallError(f"There is no argument {storable(unknown[0])[:40]!r}; there is {', '.join(names)}.")


def _words(given: dict[str, Any], name: str, longest: int) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not storable(value).strip():
        raise InvalidToolCallError(f"{name} must be a string that is not blank.")
    words = storable(value).strip()
    if len(words) > longest:
        raise InvalidToolCallError(f"{name} must have at most {longest:,} characters.")
    return words
