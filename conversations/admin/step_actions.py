"""Actions on the steps of a conversation's goal. They belong to the registry of actions (conversation_actions.py)."""

from __future__ import annotations

from collections.abc import Callable

from django.utils.translation import gettext

from conversations.admin.access import Role
from conversations.admin.action_types import Context, ConversationAction, is_open
from conversations.admin.form_fields import Number, Text
from conversations.models import Step
from conversations.services.transitions import steps
from conversations.words import lazy as _

LONGEST_STEP = 2_000


def _add_step(context: Context, text: str) -> str:
    steps.add_step(context.conversation.pk, text, context.actor, context.conversation.client)
    return gettext("The step is added.")


def _edit_step(context: Context, step: int, text: str) -> str:
    steps.edit_step(step, text, context.actor, context.conversation.client, context.conversation.pk)
    return gettext("The step is saved.")


def _set_step(status: Step.Status, said: str) -> Callable[..., str]:
    def run(context: Context, step: int) -> str:
        steps.update_step(step, status, context.actor, context.conversation.client, context.conversation.pk)
        return said

    return run


def _move_step(places: int, said: str) -> Callable[..., str]:
    def run(context: Context, step: int) -> str:
        steps.move_step(step, places, context.actor, context.conversation.client, context.conversation.pk)
        return said

    return run


_STEP = Number("step")
_STEP_TEXT = Text("text", longest=LONGEST_STEP, rows=2)

STEP_ACTIONS = (
    ConversationAction(
        "add-step",
        _("Add"),
        Role.AGENT,
        _add_step,
        (Text("text", _("New step"), longest=LONGEST_STEP, placeholder=_("New step")),),
        is_offered=is_open,
    ),
    ConversationAction(
        "edit-step", _("Save"), Role.AGENT, _edit_step, (_STEP, _STEP_TEXT), title=_("Edit"), is_offered=is_open
    ),
    ConversationAction(
        "complete-step",
        _("Complete"),
        Role.AGENT,
        _set_step(Step.Status.COMPLETE, _("The step is complete.")),
        (_STEP,),
        is_offered=is_open,
    ),
    ConversationAction(
        "cancel-step",
        _("Cancel"),
        Role.AGENT,
        _set_step(Step.Status.CANCELLED, _("The step is cancelled.")),
        (_STEP,),
        is_offered=is_open,
    ),
    ConversationAction(
        "raise-step",
        _("Move up"),
        Role.AGENT,
        _move_step(-1, _("The step is moved up.")),
        (_STEP,),
        is_offered=is_open,
    ),
    ConversationAction(
        "lower-step",
        _("Move down"),
        Role.AGENT,
        _move_step(1, _("The step is moved down.")),
        (_STEP,),
        is_offered=is_open,
    ),
)
