"""A conversation's topic and current goal, and whether global memory is still right about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from conversations.models import Conversation
from conversations.services.core.ledger import Actor, record


def change(conversation: Conversation, actor: Actor, **wanted: Any) -> None:
    """Set `topic` or `current_goal` of the locked conversation. Call it within `locking.saving`."""
    changed = [name for name in wanted if getattr(conversation, name) != wanted[name]]
    for name in changed:
        setattr(conversation, name, wanted[name])
    if changed:
        record(conversation, "details_edited", actor, cause=", ".join(changed), fields=changed)


def remember_anew(conversation: Conversation, now: datetime) -> bool:
    """Make the locked conversation due to be remembered again, where it was remembered, and return whether it was.

    Call it within `locking.saving` when something changes that global memory holds.
    """
    if conversation.remembered_at is None or conversation.is_guest:
        return False
    conversation.remember_due_at = now
    conversation.remember_attempts = 0
    return True
