"""What staff do on a session's page. Each deed reads a form, calls one service, and says what is true afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Conversation, EndedBy, Step
from conversations.services.core import audit_log
from conversations.services.core.errors import InvalidError, NotFoundError
from conversations.services.core.ledger import Actor, Kind
from conversations.services.retention import holds
from conversations.services.staff_actions import corrections, send
from conversations.services.staff_actions import resend as resending
from conversations.services.staff_actions.edit_details import edit_details
from conversations.services.tenants import channel_accounts
from conversations.services.transitions import closing, steps, takeover

LONGEST_REPLY = 100_000
LONGEST_TEXT = 20_000
LONGEST_STEP = 2_000
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Deed:
    """The role one needs in the session's client, and what is done."""

    role: str
    do: Callable[[HttpRequest, Conversation], str]


def staff(request: HttpRequest) -> Actor:
    """Who is signed in, for the ledger."""
    user: Any = request.user
    return Actor(Kind.STAFF, user.get_username(), user.pk)


def text_of(request: HttpRequest, name: str, *, longest: int, blank: bool = False) -> str:
    """A field of the form, as people typed it. Raises InvalidError where it is too long, or blank."""
    text = request.POST.get(name, "").replace("\r\n", "\n").replace("\x00", "")
    if not blank and not text.strip():
        raise InvalidError("Write something first.", code="blank")
    if len(text) > longest:
        raise InvalidError(f"That is {len(text):,} characters; at most {longest:,} are possible.", code="too_long")
    return text


def whole(text: str) -> int:
    """A whole number that the database can hold; 0 where it is none."""
    return min(int(text), 2**31 - 1) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def position_of(request: HttpRequest) -> int:
    """The position of the entry that the form is about; 0 where it is about none."""
    return whole(request.POST.get("position", ""))


def uuid_of(request: HttpRequest, name: str) -> UUID:
    """An id in the form. Raises NotFoundError where it is none."""
    try:
        return UUID(request.POST.get(name, ""))
    except ValueError:
        raise NotFoundError("There is no such thing any more: load the page again.") from None


def reply(request: HttpRequest, conversation: Conversation) -> str:
    """Say something in the assistant's place."""
    text = text_of(request, "text", longest=LONGEST_REPLY)
    _, messages = send.send(conversation.pk, text, actor=staff(request), now=timezone.now(), client=conversation.client)
    return "Your reply is on its way." if messages else "Your reply is in the transcript."


def close(request: HttpRequest, conversation: Conversation) -> str:
    """End the session."""
    reason = text_of(request, "reason", longest=LONGEST_REASON, blank=True).strip()
    closing.close(
        conversation.pk,
        ended_by=EndedBy.STAFF,
        actor=staff(request),
        now=timezone.now(),
        reason=reason,
        client=conversation.client,
    )
    return "The session is closed."


def take(request: HttpRequest, conversation: Conversation) -> str:
    """Take the session over."""
    takeover.take_over(
        conversation.pk,
        actor=staff(request),
        now=timezone.now(),
        tell=request.POST.get("tell") == "yes",
        from_colleague=request.POST.get("from_colleague") == "yes",
        client=conversation.client,
    )
    return "This session is yours; the assistant is silent."


def hand_back(request: HttpRequest, conversation: Conversation) -> str:
    """Give the session back to its assistant."""
    takeover.hand_back(conversation.pk, actor=staff(request), now=timezone.now(), client=conversation.client)
    return "The assistant has this session again."


def details(request: HttpRequest, conversation: Conversation) -> str:
    """Say what the session is about."""
    goal = text_of(request, "goal", longest=LONGEST_TEXT, blank=True).strip()
    topic = text_of(request, "topic", longest=LONGEST_REASON, blank=True).strip()
    summary = text_of(request, "summary", longest=LONGEST_TEXT, blank=True).strip()
    edit_details(
        conversation.pk,
        actor=staff(request),
        now=timezone.now(),
        client=conversation.client,
        goal=goal,
        topic=topic,
        summary=summary,
    )
    return "Saved."


def resend(request: HttpRequest, conversation: Conversation) -> str:
    """Send again what did not arrive."""
    resending.resend(
        uuid_of(request, "message"),
        actor=staff(request),
        now=timezone.now(),
        conversation_id=conversation.pk,
        client=conversation.client,
        although_unclear=request.POST.get("although_unclear") == "yes",
    )
    return "It is being sent again."


def resume_account(request: HttpRequest, conversation: Conversation) -> str:
    """Try the session's account again, which its provider refused."""
    account = conversation.channel_account
    if account is None:
        raise NotFoundError("This session has no account.")
    waiting = channel_accounts.resume(account)
    user: Any = request.user
    audit_log.record(user, "resumed", account, account.client_id)
    return f"The account is tried again: {waiting} messages wait to be sent."


def correct(request: HttpRequest, conversation: Conversation) -> str:
    """Say what an entry should read like."""
    text = text_of(request, "text", longest=LONGEST_REPLY)
    who = staff(request)
    corrections.correct(
        conversation.pk, position_of(request), text, actor=who, now=timezone.now(), client=conversation.client
    )
    return "Corrected; the original is kept beside it."


def redact(request: HttpRequest, conversation: Conversation) -> str:
    """Remove an entry's text."""
    reason = text_of(request, "reason", longest=LONGEST_REASON, blank=True).strip()
    corrections.redact(
        conversation.pk,
        position_of(request),
        actor=staff(request),
        now=timezone.now(),
        reason=reason,
        client=conversation.client,
    )
    return "The text is gone for good."


def hold(request: HttpRequest, conversation: Conversation) -> str:
    """Keep the session as it is."""
    reason = text_of(request, "reason", longest=LONGEST_REASON).strip()
    before = conversation.hold_reason
    holds.hold(conversation.pk, reason=reason, actor=staff(request), client=conversation.client)
    _note_hold(request, "held", conversation, before, reason)
    return "The session is on hold: nothing of it is deleted."


def lift_hold(request: HttpRequest, conversation: Conversation) -> str:
    """Let the session be deleted again when it is due."""
    before = conversation.hold_reason
    holds.lift(conversation.pk, actor=staff(request), client=conversation.client)
    _note_hold(request, "lifted the hold of", conversation, before, "")
    return "The hold is lifted."


def _note_hold(request: HttpRequest, verb: str, conversation: Conversation, before: str, after: str) -> None:
    user: Any = request.user
    if before != after:
        audit_log.record(user, verb, conversation, conversation.client_id, {"hold_reason": (before, after)})


# --- steps -----------------------------------------------------------------------------------------------------------
def add_step(request: HttpRequest, conversation: Conversation) -> str:
    """One more step."""
    text = text_of(request, "text", longest=LONGEST_STEP).strip()
    steps.add_step(conversation.pk, text, staff(request), conversation.client)
    return "Step added."


def edit_step(request: HttpRequest, conversation: Conversation) -> str:
    """Word a step differently."""
    text = text_of(request, "text", longest=LONGEST_STEP).strip()
    steps.edit_step(_step(request), text, staff(request), conversation.client, conversation.pk)
    return "Step saved."


def complete_step(request: HttpRequest, conversation: Conversation) -> str:
    """A step is done."""
    steps.update_step(_step(request), Step.Status.COMPLETE, staff(request), conversation.client, conversation.pk)
    return "Step completed."


def cancel_step(request: HttpRequest, conversation: Conversation) -> str:
    """A step is given up."""
    steps.update_step(_step(request), Step.Status.CANCELLED, staff(request), conversation.client, conversation.pk)
    return "Step cancelled."


def raise_step(request: HttpRequest, conversation: Conversation) -> str:
    """A step comes sooner."""
    steps.move_step(_step(request), -1, staff(request), conversation.client, conversation.pk)
    return "Step moved up."


def lower_step(request: HttpRequest, conversation: Conversation) -> str:
    """A step comes later."""
    steps.move_step(_step(request), 1, staff(request), conversation.client, conversation.pk)
    return "Step moved down."


def _step(request: HttpRequest) -> int:
    return whole(request.POST.get("step", ""))


DEEDS = {
    "reply": Deed(Role.AGENT, reply),
    "close": Deed(Role.AGENT, close),
    "take-over": Deed(Role.AGENT, take),
    "hand-back": Deed(Role.AGENT, hand_back),
    "details": Deed(Role.AGENT, details),
    "resend": Deed(Role.AGENT, resend),
    "resume-account": Deed(Role.MANAGER, resume_account),
    "correct": Deed(Role.MANAGER, correct),
    "redact": Deed(Role.MANAGER, redact),
    "hold": Deed(Role.MANAGER, hold),
    "lift-hold": Deed(Role.MANAGER, lift_hold),
    "add-step": Deed(Role.AGENT, add_step),
    "edit-step": Deed(Role.AGENT, edit_step),
    "complete-step": Deed(Role.AGENT, complete_step),
    "cancel-step": Deed(Role.AGENT, cancel_step),
    "raise-step": Deed(Role.AGENT, raise_step),
    "lower-step": Deed(Role.AGENT, lower_step),
}
