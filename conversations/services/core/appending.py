"""How a session's row and its chunks change together, always with the row locked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import Assistant, Chunk, Client, Contact, Conversation, Role, Status
from conversations.services.core import redaction
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.prepared import Select, insert

# What changes with a chunk; saved by name, so that nothing else is written over.
ACTIVITY_FIELDS = [
    *("status", "last_message_at", "last_position", "inbound_sequence"),
    *("reply_owed", "reply_due_at", "burst_began_at", "drafts_overtaken", "fallback_sent"),
    *("reply_attempts", "reply_crashes", "replies_failed"),
]
SPOKEN_BY_PEOPLE = (Role.USER, Role.VOICE)


# Of its own row alone, and without its key: chunks may refer to it meanwhile.
_LOCKED = Select(
    """
    SELECT {s}, {k}, {c}, {a}
    FROM conversations s
    JOIN contacts k ON k.id = s.contact_id
    JOIN clients c ON c.id = s.client_id
    LEFT JOIN assistants a ON a.id = s.assistant_id
    WHERE s.id = $1 AND ($2::uuid IS NULL OR s.client_id = $2)
    FOR NO KEY UPDATE OF s
    """,
    s=Conversation,
    k=Contact,
    c=Client,
    a=Assistant,
)


def lock(conversation_id: UUID | str, client: Client | None = None) -> Conversation:
    """The conversation of the client (of any, if None) with its row locked. Raises NotFoundError."""
    wanted = (str(conversation_id), client.pk if client else None)
    # Twice: where the session became another contact's while we waited for it, the first look finds neither.
    found = _LOCKED.first(*wanted) or _LOCKED.first(*wanted)
    if found is None:
        raise NotFoundError("There is no such conversation.")
    conversation: Conversation
    conversation, conversation.contact, conversation.client, assistant = found
    if assistant or not conversation.assistant_id:  # else it got another one while we waited: read when asked for
        conversation.assistant = assistant
    return conversation


def lock_open(conversation_id: UUID | str, client: Client | None = None) -> Conversation:
    """The same, if it takes messages. Raises NotFoundError, or ConflictError (`ended`)."""
    conversation = lock(conversation_id, client)
    if not conversation.is_open:
        raise ConflictError(
            f"This session is {conversation.status} and takes nothing more; the next message opens a new one.",
            code="ended",
            details={"status": conversation.status},
        )
    return conversation


def write_chunks(
    conversation: Conversation, said: Iterable[tuple[str, str]], now: datetime, **fields: Any
) -> list[Chunk]:
    """Chunks of (role, content) at the next positions, without what the client has removed; the caller saves the
    conversation's ACTIVITY_FIELDS."""
    rules = redaction.rules_of(conversation.client)
    if metadata := fields.get("metadata"):
        fields["metadata"] = rules.clean_json(metadata)
    chunks = [
        Chunk(
            conversation=conversation,
            position=conversation.last_position + offset,
            role=role,
            content=content if role == Role.SYSTEM else rules.clean(content),
            created_at=now,
            **fields,
        )
        for offset, (role, content) in enumerate(said, start=1)
    ]
    conversation.last_position += len(chunks)
    conversation.last_message_at = max(conversation.last_message_at, now)
    insert(chunks)
    return chunks


def note_inbound(conversation: Conversation, now: datetime, *, answer: bool = True) -> None:
    """The person said something: a stale session is active again, and a reply is owed where the assistant replies, or
    by the colleague who has the session (never if not `answer`: somebody else does); it is due as
    arriving/append.py says."""
    if conversation.status == Status.STALE:
        conversation.status = Status.ACTIVE
        record(conversation, "revived", CONTACT, cause="message", from_status=Status.STALE, to_status=Status.ACTIVE)
    conversation.inbound_sequence += 1
    client = conversation.client
    began = conversation.burst_began_at if conversation.reply_owed else None
    conversation.burst_began_at = began or now
    conversation.reply_owed = conversation.reply_owed or (
        answer and client.auto_reply and conversation.channel not in conversation.contact.opted_out
    )
    quiet = client.quiet_window(conversation.channel)
    conversation.reply_due_at = min(now + quiet, conversation.burst_began_at + client.longest_wait)


def note_answered(conversation: Conversation) -> None:
    """Nothing is owed any more, and nothing that went wrong before counts."""
    conversation.reply_owed = False
    conversation.burst_began_at = None
    conversation.reply_attempts = conversation.reply_crashes = 0
    conversation.drafts_overtaken = 0
