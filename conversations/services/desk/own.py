"""The own things of a member of staff in a conversation: a draft, and how far they have seen it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from conversations.models import Draft, Mention
from conversations.services.core.cluster import InsertSelect

LONGEST_DRAFT = 100_000  # characters

# Nothing is written where the conversation is not the client's.
_SAVE_DRAFT = InsertSelect(
    "desk_drafts (client_id, conversation_id, user_id, text, updated_at)",
    """
    SELECT s.client_id, s.id, $3::int, $4::text, $5::timestamptz
    FROM conversations s WHERE s.client_id = $1 AND s.id = $2""",
    """
    ON CONFLICT (client_id, conversation_id, user_id)
    DO UPDATE SET text = excluded.text, updated_at = excluded.updated_at
    RETURNING id""",
)
_NOTE_SEEN = InsertSelect(
    "desk_seen (client_id, conversation_id, user_id, position)",
    """
    SELECT s.client_id, s.id, $3::int, LEAST($4::int, s.last_position)
    FROM conversations s WHERE s.client_id = $1 AND s.id = $2""",
    """
    ON CONFLICT (client_id, conversation_id, user_id) DO UPDATE SET position = excluded.position
    WHERE desk_seen.position < excluded.position
    RETURNING id""",
)


def save_draft(client_id: UUID, conversation_id: UUID, user_id: int, text: str, now: datetime) -> None:
    """Keep the user's draft; a blank one deletes it. Nobody else's draft is touched."""
    if text.strip():
        _SAVE_DRAFT.rows(client_id, conversation_id, user_id, text[:LONGEST_DRAFT], now)
    else:
        Draft.objects.filter(client=client_id, conversation=conversation_id, user=user_id).delete()


def draft_of(client_id: UUID, conversation_id: UUID, user_id: int) -> str:
    """Return the user's draft, or an empty string."""
    found = Draft.objects.filter(client=client_id, conversation=conversation_id, user=user_id)
    return found.values_list("text", flat=True).first() or ""


def note_seen(client_id: UUID, conversation_id: UUID, user_id: int, position: int, now: datetime) -> None:
    """Note that the user has seen the conversation up to the position, and with it the notes that mention them."""
    _NOTE_SEEN.rows(client_id, conversation_id, user_id, position)
    unread = Mention.objects.filter(client=client_id, user=user_id, conversation=conversation_id, read_at=None)
    unread.update(read_at=now)
