"""Actions beside a conversation: who is responsible, priority, labels, a snooze, private notes.

They belong to the registry of actions (conversation_actions.py).
"""

from __future__ import annotations

import re

from django.utils.dateparse import parse_datetime

from conversations.admin.access import Role
from conversations.admin.action_types import Context, ConversationAction
from conversations.admin.form_fields import Number, Text, whole_number
from conversations.models import Conversation, DeskState
from conversations.models.desk import LONGEST_NOTE
from conversations.services.core.errors import InvalidError
from conversations.services.desk import notes, states

_RESPONSIBLE = re.compile(r"([0-9]{1,19})(?:/([0-9]{1,19}))?\Z")  # a user, or a user and a team; 0 is nobody


def _assign(context: Context, user: str) -> str:
    given = _RESPONSIBLE.match(user)
    if given is None:
        raise InvalidError("Choose a colleague or a team.", code="no_such_colleague")
    user_id, team_id = whole_number(given[1]), whole_number(given[2] or "0")
    name = states.assign(context.conversation.pk, user_id, team_id=team_id, **context.by)
    return f"{name} is responsible for this conversation." if name else "Nobody is responsible for this conversation."


def _prioritise(context: Context, priority: int) -> str:
    states.set_priority(context.conversation.pk, priority, **context.by)
    return f"The priority is {DeskState.Priority(priority).label.lower()}."


def _snooze(context: Context, until: str) -> str:
    try:
        at = parse_datetime(until)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidError("Choose a time.", code="no_such_time")
    states.snooze(context.conversation.pk, at, **context.by)
    return "The conversation is out of sight until then, or until the customer writes."


def _wake(context: Context) -> str:
    states.wake(context.conversation.pk, **context.by)
    return "The conversation is in sight again."


def _label(context: Context, name: str) -> str:
    return f"The label {states.add_label(context.conversation.pk, name, **context.by).name} is on it."


def _unlabel(context: Context, label: int) -> str:
    states.remove_label(context.conversation.pk, label, **context.by)
    return "The label is off."


def _note(context: Context, text: str) -> str:
    note = notes.add_note(context.conversation.pk, text, **context.by)
    told = [mention.user.get_username() for mention in note.mentions.select_related("user")]
    return f"The note is kept, and {', '.join(told)} will see it." if told else "The note is kept."


def _is_open(conversation: Conversation) -> bool:
    return conversation.is_open


DESK_ACTIONS = (
    ConversationAction(
        "assign-person", "Assign", Role.AGENT, _assign, (Text("user"),), title="Assigned to", is_offered=_is_open
    ),
    ConversationAction("prioritise", "Set", Role.AGENT, _prioritise, (Number("priority"),), title="Priority"),
    ConversationAction(
        "snooze",
        "Snooze",
        Role.AGENT,
        _snooze,
        (Text("until", "Until"),),
        title="Snooze",
        is_offered=_is_open,
    ),
    ConversationAction("wake", "End the snooze", Role.AGENT, _wake, is_offered=_is_open),
    ConversationAction(
        "label", "Add label", Role.AGENT, _label, (Text("name", "Label", longest=states.LONGEST_LABEL),), title="Labels"
    ),
    ConversationAction("unlabel", "Remove label", Role.AGENT, _unlabel, (Number("label"),)),
    ConversationAction(
        "note",
        "Keep note",
        Role.AGENT,
        _note,
        (Text("text", "Private note", longest=LONGEST_NOTE, trimmed=False, rows=2),),
        title="Note",
    ),
)
