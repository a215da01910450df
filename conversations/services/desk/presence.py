"""Signs of presence: colleagues who have a conversation open, and who is typing in it."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from conversations.models import Presence
from conversations.services.core.cluster import InsertSelect

HERE_SECONDS = 25  # after the last sign of a browser, which gives one every ten seconds
TYPING_SECONDS = 6  # after the last key
OLD = timedelta(hours=1)  # after which a row is deleted

_NOTE = InsertSelect(
    "desk_presences (client_id, conversation_id, user_id, seen_at, typing_until)",
    """
    SELECT s.client_id, s.id, $3::int, $4::timestamptz, $5::timestamptz
    FROM conversations s WHERE s.client_id = $1 AND s.id = $2""",
    """
    ON CONFLICT (client_id, user_id, conversation_id)
    DO UPDATE SET seen_at = excluded.seen_at, typing_until = excluded.typing_until
    RETURNING id""",
)


def note(client_id: UUID, conversation_id: UUID, user_id: int, *, is_typing: bool, now: datetime) -> None:
    """Note that the user has the conversation open now, and whether they are typing. Old rows of theirs go."""
    Presence.objects.filter(client=client_id, user=user_id, seen_at__lt=now - OLD).delete()
    until = now + timedelta(seconds=TYPING_SECONDS) if is_typing else None
    _NOTE.rows(client_id, conversation_id, user_id, now, until)


def leave(client_id: UUID, conversation_id: UUID, user_id: int) -> None:
    """Note that the user has the conversation open no more."""
    Presence.objects.filter(client=client_id, user=user_id, conversation=conversation_id).delete()
