"""Which assistant answers in a session."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from conversations.models import Assistant, Client, Conversation
from conversations.services.core.appending import lock_open
from conversations.services.core.errors import InvalidError
from conversations.services.core.ledger import Actor, record


def assign(
    conversation_id: UUID | str, assistant: Assistant, *, actor: Actor, client: Client | None = None
) -> Conversation:
    """The open session is the assistant's from its next reply on. What it was told when it began stays in it.

    Raises NotFoundError, InvalidError (`other_client`) for another client's assistant, or ConflictError (`ended`).
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        if assistant.client_id != conversation.client_id:
            raise InvalidError(f"{assistant} is another client's assistant.", code="other_client")
        if conversation.assistant_id != assistant.pk:
            conversation.assistant = assistant
            conversation.save(update_fields=["assistant"])
            record(conversation, "assistant_assigned", actor, cause=assistant.key, assistant_id=str(assistant.pk))
    return conversation
