"""The messages that a claim takes, by their ids."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from conversations.services.core.slots import Slots
from conversations.services.delivery import claiming


def message_ids(now: datetime, slots: Slots | int) -> list[UUID]:
    """Claim messages and return their ids, in their order."""
    return [each.message_id for each in claiming.claim(now, slots)[1]]
