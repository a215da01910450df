"""Ended conversations for tests of memory."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from memory.records import ConversationRecord, TranscriptEntry

ENDED = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KETTLE = ("Hello, my kettle is broken", "I am sorry. Do you want a refund?", "Yes, a refund please. Thank you!")
PARCEL = ("Where is my parcel?", "It was delivered to your neighbour on Monday.")


def entries(*texts: str, ended: datetime = ENDED) -> tuple[TranscriptEntry, ...]:
    """Return entries of the person and the assistant in turns, after a system and a memory entry."""
    begun = ended - timedelta(minutes=len(texts))
    opening = (
        TranscriptEntry(1, "system", "You are Ada of the shop.", begun),
        TranscriptEntry(2, "memory", "Nothing is known of the person.", begun),
    )
    said = (
        TranscriptEntry(3 + number, "ai" if number % 2 else "user", text, begun + timedelta(minutes=number))
        for number, text in enumerate(texts)
    )
    return (*opening, *said)


def session(*texts: str, client_id: uuid.UUID | None = None, **more: Any) -> ConversationRecord:
    """Return the record of an ended conversation with these texts."""
    ended = more.pop("ended_at", ENDED)
    return ConversationRecord(
        conversation_id=more.pop("conversation_id", uuid.uuid4()),
        client_id=client_id or uuid.uuid4(),
        contact_id=more.pop("contact_id", uuid.uuid4()),
        channel=more.pop("channel", "whatsapp"),
        started_at=ended - timedelta(hours=1),
        ended_at=ended,
        entries=more.pop("entries", entries(*texts, ended=ended)),
        **more,
    )
