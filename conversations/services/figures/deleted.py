"""Figures of conversations that are deleted before their last quarter of an hour is counted: expired guests' above all.

They are added to rows of their own, in the transaction of the deletion. Counting the quarter leaves those rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from conversations.services.figures import counting
from conversations.services.figures.counting import QUARTER, quarter_of
from conversations.services.figures.keeping import counted_upto


def note_deleted(client_id: UUID, ended: Sequence[tuple[UUID, datetime]], now: datetime) -> None:
    """Add what is not counted yet of the client's conversations, which are about to be deleted.

    ended: their ids, each with its end
    """
    since = counted_upto(now)
    late = [conversation_id for conversation_id, ended_at in ended if ended_at >= since]
    if not late:
        return
    facts = [*counting.facts_of(client_id, since, quarter_of(now) + QUARTER, late)]
    counting.write(client_id, counting.tallied(client_id, facts), of_deleted=True)
