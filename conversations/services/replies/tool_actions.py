"""Tool actions of the model, applied in the transaction that commits its reply, with the conversation locked.

The engine has checked each action against the conversation as it was when the prompt was made. An action that is no
longer possible (a colleague completed the step meanwhile) is skipped: the first change stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels_out.opt_out import OPT_OUT_CHANNELS
from conversations.engines.contract import (
    ASK_FOR_HUMAN,
    END_CONVERSATION,
    OFFER_CHOICES,
    OPT_OUT,
    TRANSFER_CALL,
    ToolAction,
)
from conversations.models import Conversation, Step
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import Actor
from conversations.services.delivery import opt_outs, outbox
from conversations.services.transitions import details, steps

STATUS_BY_TOOL = {"complete_step": Step.Status.COMPLETE, "cancel_step": Step.Status.CANCELLED}


@dataclass(slots=True)
class RequestedTransitions:
    """The transitions that the model asked for: hand the conversation to a person (and why), put the call through to
    one, or end it."""

    human: bool = False
    why: str = ""
    transfer: bool = False
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
        elif action.name == TRANSFER_CALL:
            requested.transfer, requested.why = True, str(action.arguments.get("reason", ""))
        elif action.name == END_CONVERSATION:
            requested.end = True
        else:
            try:
                _apply_one(conversation, action, actor)
            except DomainError:
                continue
    return requested


def metadata_of(actions: Iterable[ToolAction]) -> dict[str, Any]:
    """Return what the actions say of the reply itself, as its chunk's metadata: its choices, or that it confirms an
    opt-out."""
    found: dict[str, Any] = {}
    for action in actions:
        if action.name == OFFER_CHOICES:
            found[outbox.CHOICES] = action.arguments
        elif action.name == OPT_OUT:
            found |= opt_outs.NOTICE
    return found


def wants_opt_out(actions: Iterable[ToolAction]) -> bool:
    """Return whether the model understood that the person wants no more messages: their contact is locked first."""
    return any(action.name == OPT_OUT for action in actions)


def opt_out(conversation: Conversation, actions: Iterable[ToolAction], actor: Actor, now: datetime) -> bool:
    """Opt the contact out, where the model understood so, and return whether it did. The reply itself is still sent.

    Call it before the reply is queued, with the contact and then the conversation locked.
    """
    reason = next((action.arguments.get("reason", "") for action in actions if action.name == OPT_OUT), None)
    if reason is None or conversation.channel not in OPT_OUT_CHANNELS:
        return False
    opt_outs.apply_from_assistant(conversation, actor, str(reason) or "the person wants no more messages", now)
    return True


def _apply_one(conversation: Conversation, action: ToolAction, actor: Actor) -> None:
    if status := STATUS_BY_TOOL.get(action.name):
        steps.set_status(conversation, action.arguments["step_id"], status, actor)
    elif action.name == "add_step":
        steps.append_step(conversation, action.arguments["description"], actor, by_assistant=True)
    elif action.name == "set_topic":
        details.change(conversation, actor, topic=action.arguments["topic"])
    elif action.name == "set_current_goal":
        details.change(conversation, actor, current_goal={"description": action.arguments["description"]})
