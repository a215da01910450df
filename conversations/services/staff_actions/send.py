"""What a program or a person says in a session, in the assistant's place."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from conversations.models import Chunk, Client, Message, Role
from conversations.services.core.appending import ACTIVITY_FIELDS, lock_open, note_answered, write_chunks
from conversations.services.core.ledger import Actor, record
from conversations.services.delivery import opt_outs, outbox
from conversations.services.transitions import takeover


def send(
    conversation_id: UUID | str, content: str, *, actor: Actor, now: datetime, client: Client | None = None
) -> tuple[Chunk, list[Message]]:
    """The session has one more ai chunk, queued to be sent over its channel; a reply that was owed is settled by it,
    and where staff said it, the session waits for them no more.

    Raises NotFoundError or ConflictError (`ended`, `opted_out`).
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        opt_outs.check(conversation)
        [chunk] = write_chunks(conversation, [(Role.AI, content)], now, author_id=actor.user_id)
        messages = outbox.queue(conversation, chunk, now)
        note_answered(conversation)
        taken = takeover.note_written(conversation, actor, now)
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *taken])
        record(conversation, "sent", actor, chunk_id=chunk.pk)
    return chunk, messages
