"""The assistant that answers in a conversation."""

from __future__ import annotations

from uuid import UUID

from django.utils.translation import gettext

from conversations.models import Assistant, Client, Conversation
from conversations.services.core.errors import InvalidError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing


def assign(
    conversation_id: UUID | str, assistant: Assistant, *, actor: Actor, client: Client | None = None
) -> Conversation:
    """Let the assistant write the open conversation's replies from the next one on, and return the conversation.

    The system chunk that the conversation began with stays.

    Raises NotFoundError, ConflictError (`ended`), or InvalidError: `other_client` for another client's assistant,
    `proposes` for one that proposes, in the copilot.
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        if assistant.client_id != conversation.client_id:
            raise InvalidError(
                gettext("%(assistant)s is another client's assistant.") % {"assistant": assistant}, code="other_client"
            )
        if assistant.proposes and conversation.in_copilot:
            raise InvalidError(
                gettext("%(assistant)s proposes, which is not possible in the copilot.") % {"assistant": assistant},
                code="proposes",
            )
        if conversation.assistant_id != assistant.pk:
            conversation.assistant = assistant
            record(conversation, "assistant_assigned", actor, cause=assistant.key, assistant_id=str(assistant.pk))
    return conversation
