"""What a session is about: its goal, topic and summary, as people set them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import Client, Conversation
from conversations.services.core import redaction
from conversations.services.core.appending import lock
from conversations.services.core.ledger import Actor, record
from conversations.services.replies.summaries import note_edited

DETAILS = ("goal", "topic", "summary")


def edit_details(
    conversation_id: UUID | str, *, actor: Actor, now: datetime, client: Client | None = None, **details: str
) -> Conversation:
    """The session has these details (`goal`, `topic`, `summary`; what is not given stays), also where it has ended.

    Raises NotFoundError.
    """
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        clean = redaction.rules_of(conversation.client).clean
        details = {name: clean(text) for name, text in details.items()}
        changed = [name for name in DETAILS if name in details and getattr(conversation, name) != details[name]]
        for name in changed:
            setattr(conversation, name, details[name])
        if "summary" in changed:
            note_edited(conversation)
        if changed:
            conversation.save(update_fields=[*changed, *remember_anew(conversation, now)])
            record(conversation, "details_edited", actor, cause=", ".join(changed), fields=changed)
    return conversation


def change(conversation: Conversation, actor: Actor, **wanted: Any) -> None:
    """The locked session's `topic` or `current_goal` is this."""
    changed = [name for name in wanted if getattr(conversation, name) != wanted[name]]
    for name in changed:
        setattr(conversation, name, wanted[name])
    if changed:
        conversation.save(update_fields=changed)
        record(conversation, "details_edited", actor, cause=", ".join(changed), fields=changed)


def remember_anew(conversation: Conversation, now: datetime) -> list[str]:
    """What global memory holds of the session is out of date: it is due again, where it was remembered. Returns the
    fields to save."""
    if conversation.remembered_at is None or conversation.is_guest:
        return []
    conversation.remember_due_at = now
    conversation.remember_attempts = 0
    return ["remember_due_at", "remember_attempts"]
