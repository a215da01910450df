"""What a program or a person says in a session, in the assistant's place."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from conversations.models import Chunk, Client, Message, Role
from conversations.services.delivering import outbox
from conversations.services.people import opting_out
from conversations.services.session import takeover
from conversations.services.session.ledger import Actor, record
from conversations.services.session.transcript import ACTIVITY_FIELDS, lock_open, note_answered, write_chunks


def send(
    conversation_id: UUID | str, content: str, *, actor: Actor, now: datetime, client: Client | None = None
) -> tuple[Chunk, list[Message]]:
    """The session has one more ai chunk, queued to be sent over its channel; a reply that was owed is settled by it,
    and where staff said it, the session waits for them no more.

    Raises NotFoundError or ConflictError (`ended`, `opted_out`).
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        opting_out.check(conversation)
        [chunk] = write_chunks(conversation, [(Role.AI, content)], now, author_id=actor.user_id)
        messages = outbox.queue(conversation, chunk, now)
        note_answered(conversation)
        taken = takeover.note_written(conversation, actor, now)
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *taken])
        record(conversation, "sent", actor, chunk_id=chunk.pk)
    return chunk, messages
