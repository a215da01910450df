"""The tools that a model may call beside its reply, in the format of OpenAI's chat completions.

    built-in tools      become ToolActions, which are applied when the reply is committed, or never
    the client's own    are called at once, by the request's runner, and the model is asked again with their answers

Each call is checked first: built-in ones against the conversation at the time of the prompt, as strictly as the API
checks its callers, and the client's against the schema of their arguments. An invalid call is answered with a sentence
for the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from channels_out.choices import LONGEST_DESCRIPTION as LONGEST_DESCRIPTION_OF_CHOICE
from channels_out.choices import LONGEST_LABEL, LONGEST_TITLE, MOST_CHOICES, InvalidChoicesError, read_choices
from conversations.engines.contract import (
    ASK_FOR_HUMAN,
    END_CONVERSATION,
    OFFER_CHOICES,
    OPT_OUT,
    TRANSFER_CALL,
    OfferedTool,
    PendingStep,
    ReplyRequest,
    ToolAction,
    ToolCall,
    ToolRunner,
)
from conversations.engines.tool_schemas import problem_with, read_arguments
from memory.text import estimate_tokens, storable

LONGEST_DESCRIPTION = 2_000  # characters, as the API's
LONGEST_TOPIC = 200
LONGEST_REASON = 200
LONGEST_ARGUMENTS = 10_000
MAX_CALLS = 20  # in a reply
TOOL_THREADS = 16  # of a process, for streamed replies


class InvalidToolCallError(Exception):
    """A tool call is invalid. The message is a sentence for the model."""


def _tool(name: str, description: str, /, **properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [each for each in properties if each not in ("reason", "label")],
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
        OFFER_CHOICES,
        "Offer the person choices below your reply: buttons, a list or numbered lines, as the channel has them. Your"
        " reply asks the question, and does not list the choices.",
        options={
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_CHOICES,
            "items": {
                "type": "object",
                "properties": {
                    "title": _text("At most 20 characters, if possible.", LONGEST_TITLE),
                    "description": _text("A line about it, or ''.", LONGEST_DESCRIPTION_OF_CHOICE),
                },
                "required": ["title"],
                "additionalProperties": False,
            },
        },
        label=_text("The word on the button that opens a list, in the person's language.", LONGEST_LABEL),
    ),
    _tool(
        OPT_OUT,
        "The person wants no more messages from us at all, ever, on this channel: your reply, which confirms that they"
        " will get none, is the last one. Not for a delivery, an order or a subscription that is to be stopped.",
        reason=_text("What the person wrote, in a few words.", LONGEST_REASON),
    ),
    _tool(
        TRANSFER_CALL,
        "The caller wants a person, or you cannot help: they are put through to a person's phone after your reply.",
        reason=_text("Why, for the colleague.", LONGEST_REASON),
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


# A copilot conversation belongs to its user: only the user names it, and only the user ends it. Nothing is sent in it.
_USERS_OWN = {"set_topic", END_CONVERSATION, OFFER_CHOICES, OPT_OUT, TRANSFER_CALL}
STREAMED_TOOLS = tuple(tool for tool in TOOLS if tool["function"]["name"] not in _USERS_OWN)


BUILT_IN = frozenset(str(tool["function"]["name"]) for tool in TOOLS)  # no client's tool may have these names


def tokens_of(tools: Sequence[Mapping[str, Any]]) -> int:
    """Return the estimated tokens of the tools' descriptions, which a prompt has beside its messages."""
    return estimate_tokens(json.dumps(list(tools))) if tools else 0


def toolbox_of(request: ReplyRequest, *, streamed: bool) -> Toolbox:
    """Return the toolbox for one reply: the built-in tools, if the request has them, then the client's own.

    streamed: the reply is read while it is written, which is so in the copilot alone
    """
    built_in = (STREAMED_TOOLS if streamed or request.in_copilot else TOOLS) if request.tools else ()
    not_here = {OPT_OUT: not request.may_opt_out, TRANSFER_CALL: not request.may_transfer}
    built_in = tuple(tool for tool in built_in if not not_here.get(tool["function"]["name"]))
    return Toolbox(request.steps, built_in, request.offered_tools, request.runner)


@cache
def tool_threads() -> ThreadPoolExecutor:
    """Return the process's threads on which streamed replies call tools: slow tools keep nothing but each other."""
    return ThreadPoolExecutor(TOOL_THREADS, thread_name_prefix="tools")


def as_specification(tool: OfferedTool) -> dict[str, Any]:
    """Return a client's tool in the format of chat completions."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


class Toolbox:
    """Answers the model's tool calls for one reply, and collects its tool actions.

    tools           what the model is offered, in the format of chat completions
    blocks          a call may wait for the network: on an event loop, `call` belongs on one of `executor`'s threads
    tool_actions    the valid calls of built-in tools, to apply with the reply
    calls           every call with its answer, in their order
    """

    def __init__(
        self,
        steps: Sequence[PendingStep],
        tools: Sequence[Mapping[str, Any]] = TOOLS,
        offered: Sequence[OfferedTool] = (),
        runner: ToolRunner | None = None,
    ) -> None:
        self._runner = runner
        self._own = {tool.name: tool for tool in offered} if runner else {}
        self.tools: tuple[Mapping[str, Any], ...] = (*tools, *map(as_specification, self._own.values()))
        self.blocks = bool(self._own)
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
            OFFER_CHOICES: self._offer,
            OPT_OUT: lambda given: self._once(given, OPT_OUT, "They get nothing more after your reply."),
            TRANSFER_CALL: lambda given: self._once(given, TRANSFER_CALL, "They are put through after your reply."),
            ASK_FOR_HUMAN: lambda given: self._once(given, ASK_FOR_HUMAN, "A colleague takes over after your reply."),
            END_CONVERSATION: lambda given: self._once(given, END_CONVERSATION, "It ends after your reply."),
        }
        self._offered = [tool["function"]["name"] for tool in self.tools]

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Return the threads for calls that may wait for the network."""
        return tool_threads()

    def call(self, name: str, arguments: str) -> bool:
        """Check one call, add it with its answer to `calls`, and return whether the reply may end after it.

        It may end after a valid call of a built-in tool. Otherwise the model is asked again with the answer: the call
        was invalid, or the tool is the client's own. Such a call is made here, and waits for the network.

        Raises EngineError (`lost`) if the turn is no longer ours.
        """
        try:
            answer, may_end = self._checked(name, arguments), name not in self._own
        except InvalidToolCallError as error:
            answer, may_end = str(error), False
        self.calls.append(ToolCall(storable(name)[:100], storable(arguments)[:LONGEST_ARGUMENTS], answer))
        return may_end

    def _checked(self, name: str, arguments: str) -> str:
        if len(self.calls) >= MAX_CALLS:
            raise InvalidToolCallError(f"At most {MAX_CALLS} calls are possible in a reply. Write your reply now.")
        if name not in self._offered:
            raise InvalidToolCallError(f"There is no such tool; there are {', '.join(self._offered)}.")
        given = _object(arguments)
        return self._call_own(self._own[name], given) if name in self._own else self._checks[name](given)

    def _call_own(self, tool: OfferedTool, given: dict[str, Any]) -> str:
        if problem := problem_with(given, tool.parameters):
            raise InvalidToolCallError(problem)
        assert self._runner is not None  # noqa: S101 - for the type checker: without a runner no tool is the client's
        return self._runner.call(tool.name, given)

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

    def _offer(self, given: dict[str, Any]) -> str:
        _only(given, "options", "label")
        try:
            choices = read_choices(given.get("options"), given.get("label"))
        except InvalidChoicesError as error:
            raise InvalidToolCallError(str(error).replace("choices", "options", 1)) from None
        others = [action for action in self.tool_actions if action.name != OFFER_CHOICES]
        self.tool_actions = [*others, ToolAction(OFFER_CHOICES, choices.as_json())]
        return "They are offered below your reply."

    def _once(self, given: dict[str, Any], name: str, answer: str) -> str:
        _only(given, "reason")
        reason = _words(given, "reason", LONGEST_REASON) if given.get("reason") else ""
        if name not in [action.name for action in self.tool_actions]:
            self.tool_actions.append(ToolAction(name, {"reason": reason}))
        return answer


def _object(arguments: str) -> dict[str, Any]:
    if len(arguments) > LONGEST_ARGUMENTS:
        raise InvalidToolCallError("The arguments are too long.")
    given = read_arguments(arguments, LONGEST_ARGUMENTS)
    if given is None:
        raise InvalidToolCallError("The arguments must be a JSON object.")
    cleaned: dict[str, Any] = _storable_json(given)
    return cleaned


def _storable_json(value: Any) -> Any:
    """Return the JSON value with all strings and names as the database can store them."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable_json(each) for each in value]
    if isinstance(value, dict):
        return {storable(name): _storable_json(each) for name, each in value.items()}
    return value


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
