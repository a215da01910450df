"""Legal holds: nothing that is on hold can be deleted."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from conversations.models import Client, Contact, Conversation
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.event_notes import note_contact
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing

LONGEST_REASON = 200


def hold(conversation_id: UUID | str, *, reason: str, actor: Actor, client: Client | None = None) -> Conversation:
    """Put the conversation on hold: it is kept as it is, whatever its age, until the hold is lifted.

    Another reason replaces the earlier one. Raises NotFoundError, or InvalidError (`no_reason`) if the reason is empty
    or longer than LONGEST_REASON.
    """
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON:
        raise InvalidError(
            gettext("A hold needs a reason of at most %(most)s characters.") % {"most": LONGEST_REASON},
            code="no_reason",
        )
    return _set(conversation_id, reason, actor, client)


def lift(conversation_id: UUID | str, *, actor: Actor, client: Client | None = None) -> Conversation:
    """Lift the conversation's hold, if it has one. Deletions that are due happen from now on. Raises NotFoundError."""
    return _set(conversation_id, "", actor, client)


def _set(conversation_id: UUID | str, reason: str, actor: Actor, client: Client | None) -> Conversation:
    with editing(conversation_id, client) as conversation:
        before, conversation.hold_reason = conversation.hold_reason, reason
        if reason != before:
            record(conversation, "held" if reason else "hold_lifted", actor, cause=reason or before)
    return conversation


def set_contact_hold(client_id: UUID, contact_id: UUID, reason: str) -> None:
    """Put the contact on hold, with everything of theirs, or lift their hold with ''. Raises NotFoundError.

    Nothing else of the contact is written: what the person says meanwhile stands.
    """
    with transaction.atomic():
        ours = Contact.objects.select_for_update(no_key=True).filter(client_id=client_id, pk=contact_id)
        before = ours.values_list("hold_reason", flat=True).first()
        if before is None:
            raise NotFoundError(gettext("This contact does not exist."))
        if before != reason:
            Contact.objects.filter(client_id=client_id, pk=contact_id).update(hold_reason=reason)
            note_contact(client_id, contact_id, "hold")


def hold_reason(conversation: Conversation) -> str:
    """Return the reason of the conversation's hold or else its contact's; '' if neither is on hold."""
    return conversation.hold_reason or conversation.contact.hold_reason


def refuse_if_held(client_id: UUID, conversation_id: UUID) -> None:
    """Raise ConflictError (`on_hold`) if the conversation or its contact is on hold."""
    found = Conversation.objects.of(client_id).select_related("contact").filter(pk=conversation_id).first()
    if found and (reason := hold_reason(found)):
        raise ConflictError(gettext("This conversation is on hold: %(reason)s") % {"reason": reason}, code="on_hold")


def refuse_if_contact_held(contact: Contact) -> None:
    """Raise ConflictError (`on_hold`) if the contact or one of their conversations is on hold."""
    if contact.hold_reason:
        raise ConflictError(
            gettext("This contact is on hold: %(reason)s") % {"reason": contact.hold_reason}, code="on_hold"
        )
    held = Conversation.objects.filter(contact=contact).exclude(hold_reason="").order_by("started_at").first()
    if held:
        raise ConflictError(
            gettext("A conversation of this contact is on hold: %(reason)s") % {"reason": held.hold_reason},
            code="on_hold",
        )
