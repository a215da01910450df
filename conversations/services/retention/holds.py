"""Legal holds: of what is on hold nothing is deleted, by nobody. A contact's hold is set on the contact's own page."""

from __future__ import annotations

from uuid import UUID

from conversations.models import Client, Contact, Conversation
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing

LONGEST_REASON = 200


def hold(conversation_id: UUID | str, *, reason: str, actor: Actor, client: Client | None = None) -> Conversation:
    """The session is kept as it is, whatever its age, until the hold is lifted. Another reason replaces the one before.

    Raises NotFoundError, or InvalidError for no reason or one that is too long.
    """
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON:
        raise InvalidError(f"A hold needs a reason of at most {LONGEST_REASON} characters.", code="no_reason")
    return _set(conversation_id, reason, actor, client)


def lift(conversation_id: UUID | str, *, actor: Actor, client: Client | None = None) -> Conversation:
    """The session is on hold no more: from now on what is due happens to it. Where it is not, nothing changes. Raises
    NotFoundError."""
    return _set(conversation_id, "", actor, client)


def _set(conversation_id: UUID | str, reason: str, actor: Actor, client: Client | None) -> Conversation:
    with editing(conversation_id, client) as conversation:
        before, conversation.hold_reason = conversation.hold_reason, reason
        if reason != before:
            record(conversation, "held" if reason else "hold_lifted", actor, cause=reason or before)
    return conversation


def reason_for(conversation: Conversation) -> str:
    """Why the session must be kept: its own hold, or its contact's; '' where it need not."""
    return conversation.hold_reason or conversation.contact.hold_reason


def refuse_for(conversation_id: UUID) -> None:
    """Raise ConflictError (`on_hold`) where the session must be kept as it is."""
    conversation = Conversation.objects.select_related("contact").filter(pk=conversation_id).first()
    if conversation and (reason := reason_for(conversation)):
        raise ConflictError(f"This session is on hold: {reason}", code="on_hold")


def refuse_for_contact(contact: Contact) -> None:
    """Raise ConflictError (`on_hold`) where the person, or one of their sessions, must be kept."""
    if contact.hold_reason:
        raise ConflictError(f"This contact is on hold: {contact.hold_reason}", code="on_hold")
    held = Conversation.objects.filter(contact=contact).exclude(hold_reason="").order_by("started_at").first()
    if held:
        raise ConflictError(f"A session of this contact is on hold: {held.hold_reason}", code="on_hold")
