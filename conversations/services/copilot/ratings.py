"""The question about satisfaction in the copilot: what the panel shows of it, and the user's answer.

The rows of ratings are out of the reach of the users' database role. So whether the session is the user's is asked as
the user, and the rest happens in the application's own role, for this session alone.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from conversations.models import Conversation
from conversations.services.copilot.sessions import User, session
from conversations.services.transitions import ratings
from conversations.services.transitions.ratings import ShownRating


def shown(known: Conversation, now: datetime) -> ShownRating | None:
    """Return the rating of one of the user's sessions; None for an open one, or where the user was not asked."""
    return None if known.is_open else ratings.shown(known, now)


def rate(user: User, session_id: UUID, score: int, comment: str, now: datetime) -> ShownRating:
    """Store the user's answer and return the rating. Raises NotFoundError, and what `ratings.answer` raises."""
    known = session(user, session_id)
    return ratings.answer(known.client_id, known.pk, score, comment, actor=user.actor, now=now)
