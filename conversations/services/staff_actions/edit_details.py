"""Editing a conversation's goal, topic and summary."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from conversations.models import Client, Conversation
from conversations.services.core import redaction
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.replies.summaries import note_summary_edited
from conversations.services.transitions.details import remember_anew

DETAILS = ("goal", "topic", "summary")


def edit_details(
    conversation_id: UUID | str, *, actor: Actor, now: datetime, client: Client | None = None, **details: str
) -> Conversation:
    """Set `goal`, `topic` or `summary`, also of a conversation that has ended, and return it.

    Details that are not given stay. Raises NotFoundError.
    """
    with editing(conversation_id, client) as conversation:
        clean = redaction.rules_of(conversation.client).clean
        details = {name: clean(text) for name, text in details.items()}
        changed = [name for name in DETAILS if name in details and getattr(conversation, name) != details[name]]
        for name in changed:
            setattr(conversation, name, details[name])
        if "summary" in changed:
            note_summary_edited(conversation)
        if changed:
            remember_anew(conversation, now)
            record(conversation, "details_edited", actor, cause=", ".join(changed), fields=changed)
    return conversation
