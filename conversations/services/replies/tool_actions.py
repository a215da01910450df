"""What the model did beside speaking, done: in the transaction that commits its reply, with the session locked.

The engine has checked each deed against the session as it was when the prompt was made. What is no longer possible
(a colleague completed the step meanwhile) is left alone: whoever was first is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conversations.engines.contract import ASK_FOR_HUMAN, END_CONVERSATION, ToolAction
from conversations.models import Conversation, Step
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import Actor
from conversations.services.transitions import details, steps

STATUS_BY_TOOL = {"complete_step": Step.Status.COMPLETE, "cancel_step": Step.Status.CANCELLED}


@dataclass(slots=True)
class RequestedTransitions:
    """What the model wants to become of the session: a person for it, and why; its end."""

    human: bool = False
    why: str = ""
    end: bool = False


NOTHING = RequestedTransitions()


def do(conversation: Conversation, wanted: Iterable[ToolAction], actor: Actor) -> RequestedTransitions:
    """The steps, topic and current goal of the locked session are as the model wants them. Returns what else it wants,
    which is the caller's affair."""
    wishes = RequestedTransitions()
    for deed in wanted:
        if deed.name == ASK_FOR_HUMAN:
            wishes.human, wishes.why = True, str(deed.arguments.get("reason", ""))
        elif deed.name == END_CONVERSATION:
            wishes.end = True
        else:
            try:
                _do(conversation, deed, actor)
            except DomainError:
                continue
    return wishes


def _do(conversation: Conversation, deed: ToolAction, actor: Actor) -> None:
    if status := STATUS_BY_TOOL.get(deed.name):
        steps.set_status(conversation, deed.arguments["step_id"], status, actor)
    elif deed.name == "add_step":
        steps.append_step(conversation, deed.arguments["description"], actor, by_assistant=True)
    elif deed.name == "set_topic":
        details.change(conversation, actor, topic=deed.arguments["topic"])
    elif deed.name == "set_current_goal":
        details.change(conversation, actor, current_goal={"description": deed.arguments["description"]})
