"""The ledger: who caused what, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from conversations.models import Conversation, ConversationEvent
from conversations.services.core.prepared import insert

Kind = ConversationEvent.Actor


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: `kind` is contact, assistant, staff, api or system; `name` a user's, a key's or a job's."""

    kind: str
    name: str = ""
    user_id: int | None = None


CONTACT = Actor(Kind.CONTACT)
ASSISTANT = Actor(Kind.ASSISTANT)
SYSTEM = Actor(Kind.SYSTEM)


def record(
    conversation: Conversation | UUID,
    kind: str,
    actor: Actor,
    *,
    cause: str = "",
    from_status: str = "",
    to_status: str = "",
    **data: Any,
) -> None:
    """One line in the ledger of the conversation."""
    line = ConversationEvent(
        conversation_id=conversation if isinstance(conversation, UUID) else conversation.pk,
        kind=kind,
        actor=actor.kind,
        actor_name=actor.name,
        cause=cause,
        from_status=from_status,
        to_status=to_status,
        data=data,
    )
    insert([line])
