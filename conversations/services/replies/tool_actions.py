"""Tool actions of the model, applied in the transaction that commits its reply, with the conversation locked.

The engine has checked each action against the conversation as it was when the prompt was made. An action that is no
longer possible (a colleague completed the step meanwhile) is skipped: the first change stands.
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
    """The transitions that the model asked for: hand the conversation to a person (and why), or end it."""

    human: bool = False
    why: str = ""
    end: bool = False


NOTHING_REQUESTED = RequestedTransitions()


def apply(conversation: Conversation, actions: Iterable[ToolAction], actor: Actor) -> RequestedTransitions:
    """Apply the actions to the steps, topic and current goal of the locked conversation.

    Return the transitions that the model asked for; the caller makes them. Call it within `locking.saving`.
    """
    requested = RequestedTransitions()
    for action in actions:
        if action.name == ASK_FOR_HUMAN:
            requested.human, requested.why = True, str(action.arguments.get("reason", ""))
        elif action.name == END_CONVERSATION:
            requested.end = True
        else:
            try:
                _apply_one(conversation, action, actor)
            except DomainError:
                continue
    return requested


def _apply_one(conversation: Conversation, action: ToolAction, actor: Actor) -> None:
    if status := STATUS_BY_TOOL.get(action.name):
        steps.set_status(conversation, action.arguments["step_id"], status, actor)
    elif action.name == "add_step":
        steps.append_step(conversation, action.arguments["description"], actor, by_assistant=True)
    elif action.name == "set_topic":
        details.change(conversation, actor, topic=action.arguments["topic"])
    elif action.name == "set_current_goal":
        details.change(conversation, actor, current_goal={"description": action.arguments["description"]})
