"""The rows of hand-overs that wait for the next opening. handovers.py decides; here they are kept."""

from __future__ import annotations

from datetime import datetime

from conversations.models import Conversation, PendingHandover
from conversations.services.core.ledger import Actor


def of(conversation: Conversation) -> PendingHandover | None:
    """Return the conversation's pending hand-over, or None."""
    return PendingHandover.objects.filter(client=conversation.client_id, conversation=conversation.pk).first()


def note(conversation: Conversation, actor: Actor, reason: str, due_at: datetime) -> bool:
    """Note that the locked conversation is handed over at `due_at`, and return whether none was noted before.

    One that is noted already stays as it is.
    """
    _, is_new = PendingHandover.objects.get_or_create(
        client_id=conversation.client_id,
        conversation=conversation,
        defaults={"due_at": due_at, "reason": reason[:200], "actor": actor.kind, "actor_name": actor.name[:200]},
    )
    return is_new


def drop(conversation: Conversation) -> None:
    """Forget the locked conversation's pending hand-over, if there is one."""
    PendingHandover.objects.filter(client=conversation.client_id, conversation=conversation.pk).delete()


def move(into: Conversation, other: Conversation) -> None:
    """Let the hand-over of `other` be that of `into`, unless that has one of its own. Both are locked."""
    if of(into) is None:
        PendingHandover.objects.filter(client=into.client_id, conversation=other.pk).update(conversation=into)
