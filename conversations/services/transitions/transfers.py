"""Transfers: a call is put through to a person's phone, by the assistant, by staff, or where a person is called.

The conversation's row has the number. The provider's next request in the call takes it (voice/answers.py): the caller
hears what is still to be said, and is connected. If nobody answers there, the assistant goes on.
"""

from __future__ import annotations

from uuid import UUID

from django.utils.translation import gettext

from channels_out.kinds import Channel
from channels_out.phones import e164
from conversations.models import Client, Conversation
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing


def transfer(conversation_id: UUID | str, number: str, *, actor: Actor, client: Client | None = None) -> Conversation:
    """Put the open call through to the number, with the provider's next request. Returns the conversation.

    number: with its country code; '' for the assistant's own

    Raises NotFoundError, InvalidError (`number`), or ConflictError (`ended`, `no_call`).
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        if conversation.channel != Channel.VOICE:
            raise ConflictError(gettext("Only a phone call can be transferred."), code="no_call")
        wanted = e164(number) if number.strip() else number_of(conversation)
        if not wanted:
            raise InvalidError(gettext("Write the number with its country code, such as +51999999999."), code="number")
        request(conversation, wanted, actor)
    return conversation


def request(conversation: Conversation, number: str, actor: Actor, reason: str = "") -> None:
    """Request the transfer of the locked call. Call it within `locking.saving`."""
    conversation.transfer_to = number
    record(conversation, "transfer_requested", actor, cause=reason[:200], number=number)


def number_of(conversation: Conversation) -> str:
    """Return the number to which the assistant transfers calls; '' if it has none, or this is no call."""
    is_call = conversation.channel == Channel.VOICE
    return conversation.assistant.transfer_number if is_call and conversation.assistant else ""
