"""Actions beside a conversation: who is responsible, priority, labels, a snooze, private notes.

They belong to the registry of actions (conversation_actions.py).
"""

from __future__ import annotations

import re

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext

from conversations.admin.access import Role
from conversations.admin.action_types import Context, ConversationAction, is_open
from conversations.admin.form_fields import Number, Text, whole_number
from conversations.models import DeskState
from conversations.models.desk import LONGEST_NOTE
from conversations.services.core.errors import InvalidError
from conversations.services.desk import notes, states
from conversations.words import lazy as _

_RESPONSIBLE = re.compile(r"([0-9]{1,19})(?:/([0-9]{1,19}))?\Z")  # a user, or a user and a team; 0 is nobody


def _assign(context: Context, user: str) -> str:
    given = _RESPONSIBLE.match(user)
    if given is None:
        raise InvalidError(gettext("Choose a colleague or a team."), code="no_such_colleague")
    user_id, team_id = whole_number(given[1]), whole_number(given[2] or "0")
    name = states.assign(context.conversation.pk, user_id, team_id=team_id, **context.by)
    return (
        gettext("%(name)s is responsible for this conversation.") % {"name": name}
        if name
        else gettext("Nobody is responsible for this conversation.")
    )


def _prioritise(context: Context, priority: int) -> str:
    states.set_priority(context.conversation.pk, priority, **context.by)
    return gettext("The priority is %(label)s.") % {"label": gettext(DeskState.Priority(priority).label).lower()}


def _snooze(context: Context, until: str) -> str:
    try:
        at = parse_datetime(until)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidError(gettext("Choose a time."), code="no_such_time")
    states.snooze(context.conversation.pk, at, **context.by)
    return gettext("The conversation is out of sight until then, or until the customer writes.")


def _wake(context: Context) -> str:
    states.wake(context.conversation.pk, **context.by)
    return gettext("The conversation is in sight again.")


def _label(context: Context, name: str) -> str:
    return gettext("The label %(name)s is on it.") % {
        "name": states.add_label(context.conversation.pk, name, **context.by).name
    }


def _unlabel(context: Context, label: int) -> str:
    states.remove_label(context.conversation.pk, label, **context.by)
    return gettext("The label is off.")


def _note(context: Context, text: str) -> str:
    note = notes.add_note(context.conversation.pk, text, **context.by)
    told = [mention.user.get_username() for mention in note.mentions.select_related("user")]
    return (
        gettext("The note is kept, and %(told)s will see it.") % {"told": ", ".join(told)}
        if told
        else gettext("The note is kept.")
    )


DESK_ACTIONS = (
    ConversationAction(
        "assign-person",
        _("Assign"),
        Role.AGENT,
        _assign,
        (Text("user"),),
        title=_("Assigned to"),
        is_offered=is_open,
    ),
    ConversationAction("prioritise", _("Set"), Role.AGENT, _prioritise, (Number("priority"),), title=_("Priority")),
    ConversationAction(
        "snooze",
        _("Snooze"),
        Role.AGENT,
        _snooze,
        (Text("until", _("Until")),),
        title=_("Snooze"),
        is_offered=is_open,
    ),
    ConversationAction("wake", _("End the snooze"), Role.AGENT, _wake, is_offered=is_open),
    ConversationAction(
        "label",
        _("Add label"),
        Role.AGENT,
        _label,
        (Text("name", _("Label"), longest=states.LONGEST_LABEL),),
        title=_("Labels"),
    ),
    ConversationAction("unlabel", _("Remove label"), Role.AGENT, _unlabel, (Number("label"),)),
    ConversationAction(
        "note",
        _("Keep note"),
        Role.AGENT,
        _note,
        (Text("text", _("Private note"), longest=LONGEST_NOTE, trimmed=False, rows=2),),
        title=_("Note"),
    ),
)
