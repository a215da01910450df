"""Sessions as JSON lines, for whoever takes them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from conversations.models import Conversation, ConversationEvent
from conversations.services.core.ledger import Actor
from conversations.services.export import transcripts

BATCH = 20


def lines(sessions: Sequence[UUID], *, actor: Actor) -> Iterator[bytes]:
    """One line of JSON for each session, with its contact, steps and chunks as they should be read. The ledger of each
    says who took it. Reads a few entries at a time, whatever their number."""
    for start in range(0, len(sessions), BATCH):
        batch = sessions[start : start + BATCH]
        found = Conversation.objects.filter(pk__in=batch).select_related("contact", "client", "assistant")
        read = {each.pk: each for each in found.prefetch_related("steps")}
        note_taken(list(read), actor=actor)
        for pk in batch:
            if pk in read:
                yield from transcripts.as_json(read[pk])
                yield b"\n"


def note_taken(sessions: Sequence[UUID], *, actor: Actor, cause: str = "") -> None:
    """The ledger of each session says who took it."""
    ConversationEvent.objects.bulk_create(
        ConversationEvent(conversation_id=pk, kind="exported", cause=cause, actor=actor.kind, actor_name=actor.name)
        for pk in sessions
    )
