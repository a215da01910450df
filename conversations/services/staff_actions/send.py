"""Sending a message of staff or of a program in a conversation."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from conversations.models import Chunk, Client, Message, Role
from conversations.services.core import tool_requests
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.delivery import opt_outs, outbox
from conversations.services.transitions import takeover


def send(
    conversation_id: UUID | str, content: str, *, actor: Actor, now: datetime, client: Client | None = None
) -> tuple[Chunk, list[Message]]:
    """Append an ai chunk to the open conversation and queue it for sending; return the chunk and its messages.

    A reply that was owed is owed no more, and approved tool calls that were not made yet expire. If staff wrote the
    message, the conversation no longer waits for a person.

    Raises NotFoundError or ConflictError (`ended`, `opted_out`).
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        opt_outs.check(conversation)
        [chunk] = write_chunks(conversation, [(Role.AI, content)], now, author_id=actor.user_id)
        messages = outbox.queue(conversation, chunk, now)
        note_answered(conversation)
        tool_requests.expire_approved(conversation, now)
        takeover.note_written(conversation, actor, now)
        record(conversation, "sent", actor, chunk_id=chunk.pk)
    return chunk, messages
