"""Conversations as JSON lines, for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from conversations.models import Conversation, ConversationEvent
from conversations.services.core.ledger import Actor
from conversations.services.export import transcripts

BATCH = 20


def json_lines(conversation_ids: Sequence[UUID], *, actor: Actor) -> Iterator[bytes]:
    """Yield a line of JSON for each conversation, in pieces, with contact, steps and corrected chunks.

    The ledger of each conversation records who took it. Rows are read in batches, whatever their number.
    """
    for start in range(0, len(conversation_ids), BATCH):
        batch = conversation_ids[start : start + BATCH]
        found = Conversation.objects.filter(pk__in=batch).select_related("contact", "client", "assistant")
        conversations = {each.pk: each for each in found.prefetch_related("steps")}
        record_exported(list(conversations), actor=actor)
        for pk in batch:
            if pk in conversations:
                yield from transcripts.as_json(conversations[pk])
                yield b"\n"


def record_exported(conversation_ids: Sequence[UUID], *, actor: Actor, cause: str = "") -> None:
    """Record in the ledger of each conversation who exported it."""
    ConversationEvent.objects.bulk_create(
        ConversationEvent(conversation_id=pk, kind="exported", cause=cause, actor=actor.kind, actor_name=actor.name)
        for pk in conversation_ids
    )
