"""Decisions of staff on tool calls. The actions belong to the registry of actions (conversation_actions.py)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.utils.translation import gettext

from conversations.admin.access import Role
from conversations.admin.action_types import Context, ConversationAction, is_open
from conversations.admin.form_fields import RowId, Text
from conversations.services.staff_actions import tool_decisions
from conversations.words import lazy as _


def _approve_call(context: Context, call: UUID, reason: str) -> str:
    tool_decisions.approve(context.conversation.pk, call, reason=reason, **context.by)
    return gettext("The call is approved. The assistant makes it and replies.")


def _refuse_call(context: Context, call: UUID, reason: str) -> str:
    tool_decisions.refuse(context.conversation.pk, call, reason=reason, **context.by)
    return gettext("The call is refused. The assistant is told so and replies.")


def _settle_call(*, done: bool) -> Callable[..., str]:
    def run(context: Context, call: UUID) -> str:
        tool_decisions.settle(context.conversation.pk, call, done=done, **context.by)
        return gettext("It is noted, and the assistant is told with its next reply.")

    return run


_CALL = RowId("call")
_DECISION = (
    _CALL,
    Text("reason", _("Reason"), required=False, placeholder=_("Reason; the assistant is told why you refuse")),
)

TOOL_CALL_ACTIONS = (
    ConversationAction("approve-call", _("Approve"), Role.AGENT, _approve_call, _DECISION, is_offered=is_open),
    ConversationAction("refuse-call", _("Refuse"), Role.AGENT, _refuse_call, _DECISION, is_offered=is_open),
    ConversationAction(
        "call-was-done",
        _("It was done"),
        Role.AGENT,
        _settle_call(done=True),
        (_CALL,),
        question=_("Have you found out that the tool did it? The assistant is told so."),
    ),
    ConversationAction(
        "call-was-not-done",
        _("It was not done"),
        Role.AGENT,
        _settle_call(done=False),
        (_CALL,),
        question=_("Have you found out that the tool did not do it? The assistant is told so."),
    ),
)
