"""Sessions as JSON lines, for whoever takes them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import orjson
from django.db.models import Prefetch

from conversations.models import Chunk, Conversation, ConversationEvent, corrected_text
from conversations.services.ledger import Actor

BATCH = 20


def lines(sessions: Sequence[UUID], *, actor: Actor) -> Iterator[bytes]:
    """One line of JSON for each session, with its contact, steps and chunks as they should be read. The ledger of each
    says who took it. Reads a few sessions at a time, whatever their number."""
    for start in range(0, len(sessions), BATCH):
        batch = sessions[start : start + BATCH]
        chunks = Chunk.objects.annotate(words=corrected_text()).order_by("position")
        found = Conversation.objects.filter(pk__in=batch).select_related("contact", "client", "assistant")
        read = {each.pk: each for each in found.prefetch_related("steps", Prefetch("chunks", queryset=chunks))}
        ConversationEvent.objects.bulk_create(
            ConversationEvent(conversation_id=pk, kind="exported", actor=actor.kind, actor_name=actor.name)
            for pk in read
        )
        for pk in batch:
            if pk in read:
                yield _line(read[pk])


def _line(session: Conversation) -> bytes:
    contact = session.contact
    return orjson.dumps(
        {
            "id": session.pk,
            "client": session.client.sub_domain,
            "channel": session.channel,
            "status": session.status,
            "contact": {"user_id": contact.user_id, "name": contact.name, "phone": contact.phone},
            "assistant": session.assistant.key if session.assistant else None,
            "goal": session.goal,
            "topic": session.topic,
            "summary": session.summary,
            "started_at": session.started_at,
            "last_message_at": session.last_message_at,
            "ended_at": session.ended_at,
            "ended_by": session.ended_by,
            "end_reason": session.end_reason,
            "steps": [{"description": step.description, "status": step.status} for step in session.steps.all()],
            "chunks": [_chunk(chunk) for chunk in session.chunks.all()],
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _chunk(chunk: Chunk) -> dict[str, object]:
    words = getattr(chunk, "words", chunk.content)
    said = {
        "position": chunk.position,
        "role": chunk.role,
        "content": words,
        "by_staff": chunk.author_id is not None,
        "created_at": chunk.created_at,
    }
    return said if words == chunk.content else said | {"original": chunk.content}
