"""Conversations as JSON lines, for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from uuid import UUID

from django.db.models import Prefetch

from conversations.models import Conversation, ConversationEvent, Step
from conversations.services.core.ledger import Actor
from conversations.services.export import transcripts

BATCH = 20


def json_lines(clients: Mapping[UUID, UUID], *, actor: Actor) -> Iterator[bytes]:
    """Yield a line of JSON for each conversation, in pieces, with contact, steps and corrected chunks.

    The ledger of each conversation records who took it. Rows are read in batches, whatever their number.

    clients: the ids of the conversations, each with its client's
    """
    conversation_ids = list(clients)
    for start in range(0, len(conversation_ids), BATCH):
        batch = conversation_ids[start : start + BATCH]
        theirs = {clients[pk] for pk in batch}
        found = Conversation.objects.filter(client__in=theirs, pk__in=batch).select_related(
            "contact", "client", "assistant"
        )
        steps = Step.objects.filter(client__in=theirs)
        conversations = {each.pk: each for each in found.prefetch_related(Prefetch("steps", steps))}
        record_exported({pk: each.client_id for pk, each in conversations.items()}, actor=actor)
        for pk in batch:
            if pk in conversations:
                yield from transcripts.as_json(conversations[pk])
                yield b"\n"


def record_exported(clients: Mapping[UUID, UUID], *, actor: Actor, cause: str = "") -> None:
    """Record in the ledger of each conversation who exported it.

    clients: the ids of the conversations, each with its client's
    """
    ConversationEvent.objects.bulk_create(
        ConversationEvent(
            client_id=client_id,
            conversation_id=pk,
            kind="exported",
            cause=cause,
            actor=actor.kind,
            actor_name=actor.name,
        )
        for pk, client_id in clients.items()
    )
