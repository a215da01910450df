"""Sending, editing and discarding an assistant's proposal. The actions belong to those of conversation_actions.py."""

from __future__ import annotations

from django.utils.translation import gettext

from conversations.admin.access import Role
from conversations.admin.action_types import Context, ConversationAction, is_open
from conversations.admin.form_fields import Number, Text
from conversations.services.staff_actions import proposals
from conversations.words import lazy as _


def _send(context: Context, proposal: int) -> str:
    proposals.send(context.conversation.pk, proposal, None, **context.by)
    return gettext("The reply is on its way.")


def _send_edited(context: Context, proposal: int, text: str) -> str:
    proposals.send(context.conversation.pk, proposal, text, **context.by)
    return gettext("The edited reply is on its way.")


def _discard(context: Context, proposal: int) -> str:
    proposals.discard(context.conversation.pk, proposal, **context.by)
    return gettext("The proposal is discarded. Nothing is sent.")


_PROPOSAL = Number("proposal")

PROPOSAL_ACTIONS = (
    ConversationAction("send-proposal", _("Send"), Role.AGENT, _send, (_PROPOSAL,), is_offered=is_open),
    ConversationAction(
        "send-edited-proposal",
        _("Send edited"),
        Role.AGENT,
        _send_edited,
        (_PROPOSAL, Text("text", _("Edited reply"), longest=proposals.LONGEST, trimmed=False, rows=4)),
        is_offered=is_open,
    ),
    ConversationAction("discard-proposal", _("Discard"), Role.AGENT, _discard, (_PROPOSAL,), is_offered=is_open),
)
