"""The registry of what staff can do with a conversation.

Each action is declared once. The transcript page offers it (templates/admin/transcript/), `transcript.py` checks the
role and runs it on one conversation, and `bulk_actions.py` runs it on many, after a page with a preview.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext

from channels_out.choices import Choices
from channels_out.kinds import Channel
from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.action_types import Bulk, Context, ConversationAction, is_open
from conversations.admin.desk_actions import DESK_ACTIONS
from conversations.admin.form_fields import Checkbox, ChoiceLines, Files, Number, RowId, Text, values_of
from conversations.admin.proposal_actions import PROPOSAL_ACTIONS
from conversations.admin.step_actions import STEP_ACTIONS
from conversations.admin.tool_call_actions import TOOL_CALL_ACTIONS
from conversations.models import OPEN, Conversation, EndedBy, Status
from conversations.services.core import audit_log
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.desk import own
from conversations.services.retention import holds
from conversations.services.staff_actions import corrections, resend, send
from conversations.services.staff_actions.edit_details import edit_details
from conversations.services.tenants import channel_accounts
from conversations.services.transitions import closing, takeover, transfers
from conversations.words import lazy as _

LONGEST_REPLY = 100_000
LONGEST_DETAIL = 20_000
LONGEST_REASON = 200


def run_action(action: ConversationAction, request: HttpRequest, conversation: Conversation) -> str:
    """Run the action with the posted values and return the sentence that the user reads. Raises DomainError.

    The caller has checked the role.
    """
    if action.run is None:
        raise NotFoundError(gettext("This action cannot be run on one conversation."))
    context = Context(conversation, request.user, access.actor_of(request), timezone.now())
    uploaded = {name: request.FILES.getlist(name) for name in request.FILES}
    return action.run(context, **values_of(action.fields, {**request.POST.dict(), **uploaded}))


def may_run(action: ConversationAction, user: Any, conversation: Conversation) -> bool:
    """Return whether the user has the role that the action needs."""
    return access.can(user, action.role, conversation.client_id)


def offered_actions(user: Any, conversation: Conversation) -> dict[str, ConversationAction]:
    """Return the actions that the page offers the user, by name with underscores, as templates need it."""
    return {
        action.name.replace("-", "_"): action
        for action in ACTIONS.values()
        if action.is_offered(conversation) and may_run(action, user, conversation)
    }


# --- what each action does -------------------------------------------------------------------------------------------
def _reply(context: Context, text: str, files: Sequence[Any], choices: Choices | None, takes_over: bool) -> str:
    """Send the reply. Whoever replies has the conversation, or the assistant would answer beside them.

    takes_over: the colleague was asked about that, where the client wants it
    """
    conversation = context.conversation
    if conversation.client.asks_before_takeover and conversation.taken_over_at is None and not takes_over:
        raise ConflictError(gettext("The assistant has this conversation. Send again to take it over."), code="asks")
    words = text if text.strip() else ""
    if not words and not files:
        raise InvalidError(gettext("Write something first."), code="blank")
    uploads = [(each.name or "file", each.file) for each in files]
    if choices and not words:
        raise InvalidError(gettext("Write the question to which these are the choices."), code="blank")
    by: dict[str, Any] = {"actor": context.actor, "now": context.now}
    messages = send.send_uploads(context.conversation, words, uploads, choices=choices, **by)[1]
    own.save_draft(context.conversation.client_id, context.conversation.pk, context.user.pk, "", context.now)
    return gettext("Your reply is on its way.") if messages else gettext("Your reply is in the transcript.")


def _close(context: Context, reason: str) -> str:
    closing.close(context.conversation.pk, ended_by=EndedBy.STAFF, reason=reason, **context.by)
    return gettext("The conversation is closed.")


def _take_over(context: Context, tell: bool, from_colleague: bool) -> str:
    takeover.take_over(context.conversation.pk, tell=tell, from_colleague=from_colleague, **context.by)
    return gettext("You have this conversation now. The assistant is silent.")


def _transfer_call(context: Context, number: str) -> str:
    transfers.transfer(context.conversation.pk, number, actor=context.actor, client=context.conversation.client)
    return gettext("The caller is put through as soon as they have heard what is being said, or have spoken.")


def _hand_back(context: Context) -> str:
    takeover.hand_back(context.conversation.pk, **context.by)
    return gettext("The assistant has this conversation again.")


def _edit_details(context: Context, goal: str, topic: str, summary: str) -> str:
    edit_details(context.conversation.pk, goal=goal, topic=topic, summary=summary, **context.by)
    return gettext("The details are saved.")


def _resend(context: Context, message: UUID, although_unclear: bool) -> str:
    resend.resend(message, conversation_id=context.conversation.pk, although_unclear=although_unclear, **context.by)
    return gettext("The message is being sent again.")


def _resume_account(context: Context) -> str:
    account = context.conversation.channel_account
    if account is None:
        raise NotFoundError(gettext("This conversation has no account."))
    waiting = channel_accounts.resume(account)
    audit_log.record(context.user, "resumed", account, account.client_id)
    return gettext("The account is tried again. Messages that wait to be sent: %(waiting)s.") % {"waiting": waiting}


def _correct(context: Context, position: int, text: str) -> str:
    corrections.correct(context.conversation.pk, position, text, **context.by)
    return gettext("The message is corrected. The original is kept beside it.")


def _redact(context: Context, position: int, reason: str) -> str:
    corrections.redact(context.conversation.pk, position, reason=reason, **context.by)
    return gettext("The text is removed for good.")


def _hold(context: Context, reason: str) -> str:
    before = context.conversation.hold_reason
    holds.hold(context.conversation.pk, reason=reason, actor=context.actor, client=context.conversation.client)
    _record_hold(context, "held", before, reason)
    return gettext("The conversation is on hold. Nothing of it is deleted.")


def _lift_hold(context: Context) -> str:
    before = context.conversation.hold_reason
    holds.lift(context.conversation.pk, actor=context.actor, client=context.conversation.client)
    _record_hold(context, "lifted the hold of", before, "")
    return gettext("The hold is lifted.")


def _record_hold(context: Context, verb: str, before: str, after: str) -> None:
    conversation = context.conversation
    if before != after:
        audit_log.record(context.user, verb, conversation, conversation.client_id, {"hold_reason": (before, after)})


# --- the registry ----------------------------------------------------------------------------------------------------
def _is_not_archived(conversation: Conversation) -> bool:
    return conversation.archived_at is None


_POSITION = Number("position")

_REGISTERED = (
    ConversationAction(
        "reply",
        _("Send"),
        Role.AGENT,
        _reply,
        (
            Text("text", _("Reply"), longest=LONGEST_REPLY, trimmed=False, rows=2, required=False),
            Files("files", _("Attach files, of 3 MB together")),
            ChoiceLines("choices", _("Choices, one in each line")),
            Checkbox("takes_over"),
        ),
        is_offered=is_open,
    ),
    ConversationAction(
        "close",
        _("Close"),
        Role.AGENT,
        _close,
        (Text("reason", _("Reason"), required=False, placeholder=_("What was settled, or why it ends")),),
        title=_("Close this conversation"),
        question=_("Close this conversation? Nothing more is sent or answered in it."),
        is_offered=is_open,
        bulk=Bulk(
            _("Close"),
            _("closed"),
            _("Only open conversations can be closed. Nothing more is sent or answered in a closed conversation."),
            statuses=OPEN,
        ),
    ),
    ConversationAction(
        "take-over",
        _("Take over"),
        Role.AGENT,
        _take_over,
        (Checkbox("tell"), Checkbox("from_colleague")),
        question=_("A colleague has this conversation. Take it over?"),
        is_offered=is_open,
    ),
    ConversationAction(
        "transfer-call",
        _("Transfer"),
        Role.AGENT,
        _transfer_call,
        (
            Text(
                "number",
                _("Number"),
                longest=40,
                required=False,
                placeholder=_("Empty: the assistant's transfer number"),
            ),
        ),
        title=_("Transfer the call"),
        is_offered=lambda conversation: conversation.is_open and conversation.channel == Channel.VOICE,
    ),
    ConversationAction("hand-back", _("Hand back to the assistant"), Role.AGENT, _hand_back, is_offered=is_open),
    ConversationAction(
        "details",
        _("Save"),
        Role.AGENT,
        _edit_details,
        (
            Text("goal", _("Goal"), longest=LONGEST_DETAIL, required=False, rows=2),
            Text("topic", _("Topic"), longest=LONGEST_REASON, required=False),
            Text("summary", _("Summary"), longest=LONGEST_DETAIL, required=False, rows=4),
        ),
        title=_("Edit goal, topic and summary"),
    ),
    ConversationAction(
        "resend",
        _("Send again"),
        Role.AGENT,
        _resend,
        (RowId("message"), Checkbox("although_unclear")),
        question=_("Nobody knows whether this message arrived. If it did, the contact gets it twice. Send it again?"),
        is_offered=is_open,
    ),
    ConversationAction("resume-account", _("Try again"), Role.MANAGER, _resume_account),
    ConversationAction(
        "correct",
        _("Save correction"),
        Role.MANAGER,
        _correct,
        (_POSITION, Text("text", _("Corrected text"), longest=LONGEST_REPLY, trimmed=False, rows=8)),
        title=_("Correct this message"),
        explanation=_("The original stays beside the correction. Nothing is sent again."),
        is_offered=_is_not_archived,
    ),
    ConversationAction(
        "redact",
        _("Remove for good"),
        Role.MANAGER,
        _redact,
        (
            _POSITION,
            Text("reason", _("Why"), required=False, placeholder=_("Do not repeat the text: the reason is kept")),
        ),
        title=_("Redact this message"),
        explanation=_(
            "The text is removed for good, here and in prompts, drafts and the summary. A message that was"
            " delivered stays with the contact."
        ),
        is_offered=_is_not_archived,
    ),
    ConversationAction(
        "hold",
        _("Hold"),
        Role.MANAGER,
        _hold,
        (Text("reason", _("Reason"), placeholder=_("Case number, or who asked for it")),),
        title=_("Put this conversation on hold"),
    ),
    ConversationAction(
        "lift-hold",
        _("Lift the hold"),
        Role.MANAGER,
        _lift_hold,
        question=_("Lift the hold? Data that are due for deletion are deleted with the next run."),
    ),
    ConversationAction(
        "assign",
        _("Assign assistant"),
        Role.MANAGER,
        bulk=Bulk(
            _("Assign"),
            _("assigned"),
            _("Only open conversations can be assigned, and only to an assistant of the same client."),
            statuses=OPEN,
            asks_assistant=True,
        ),
    ),
    ConversationAction(
        "archive",
        _("Archive"),
        Role.MANAGER,
        bulk=Bulk(
            _("Archive"),
            _("archived if they are remembered"),
            _(
                "Only conversations that have ended can be archived. The messages of an archived conversation are kept"
                " in memory alone; its summary and timeline stay."
            ),
            statuses=(Status.CLOSED, Status.EXPIRED),
        ),
    ),
    ConversationAction(
        "export",
        _("Export"),
        Role.MANAGER,
        title=_("Export the transcript"),
        explanation=_("The timeline records that you exported it."),
        bulk=Bulk(
            _("Export"),
            _("exported"),
            _(
                "You get a file with one line of JSON per conversation, with all messages. The timeline of each"
                " conversation records that you exported it."
            ),
            is_download=True,
        ),
    ),
)

ACTIONS: Mapping[str, ConversationAction] = {
    action.name: action
    for action in (*_REGISTERED, *STEP_ACTIONS, *TOOL_CALL_ACTIONS, *DESK_ACTIONS, *PROPOSAL_ACTIONS)
}
BULK_ACTIONS: Mapping[str, ConversationAction] = {action.name: action for action in _REGISTERED if action.bulk}
