"""Appending to a conversation: the SQL form for the usual message, and the general form for all others.

Both write the same rows; `tests/conversations/test_appending.py` feeds the same cases to both.

- `append_by_key` and `append_by_address` append a person's message to an active conversation in one prepared statement.
  They do nothing unless everything is as it nearly always is: caller and person are known, the message says nothing new
  of the person, their conversation is active, the message was not here before, and it was cleaned by the client's
  current redaction rules. `inbound/messages.py` then takes the general form.
- `append_inbound`, `write_chunks` and `note_inbound` do the same to a conversation that is locked.

The row lock of the UPDATE puts simultaneous messages in line, so positions have no gaps. Two deliveries of one message
at the same instant both pass the look for duplicates (each has its own snapshot): the second meets the unique index and
its whole statement is undone, position and time included.

A reply is due when nothing more came for the channel's quiet window, and at the latest `longest_wait` after the first
message that is not answered (`burst_began_at`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import transaction

from channels_out.kinds import Channel
from conversations.models import Chunk, Conversation, Role, Status
from conversations.services.core import redaction
from conversations.services.core.appending_sql import (
    BY_ADDRESS,
    BY_ADDRESS_ANYWAY,
    BY_KEY,
    INSERT_CHUNK,
    MANY_BY_ADDRESS,
    MANY_BY_KEY,
    without_chunk,
)
from conversations.services.core.cluster import answering, is_known_cluster
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.person import Person
from conversations.services.core.sql import insert, row, rows, rows_of_each
from conversations.services.core.statements import Many, Statements
from memory.redaction import RedactionRules

SPOKEN_BY_PEOPLE = (Role.USER, Role.VOICE)


class NewChunk(NamedTuple):
    """A person's message on its way into a conversation. Its fields are $1 to $8 of the appending statements.

    `metadata` is JSON text. `dedupe_key` is None where the message cannot be told from another. `text` is '' where a
    conversation is opened without a message.
    """

    channel: str
    thread: str
    at: datetime
    text: str
    message_id: str = ""
    dedupe_key: UUID | None = None
    metadata: str = "{}"
    channel_account_id: UUID | None = None

    @property
    def role(self) -> Role:
        """The chunk's role: on the voice channel the caller's words are `voice`, by whichever door they came."""
        return Role.VOICE if self.channel == Channel.VOICE else Role.USER


class Appended(NamedTuple):
    """The chunk that was appended.

    key_id      the API key that was used, where one was
    sequence    the message's number among the person's in the conversation; 0 where a conversation has none yet
    """

    conversation_id: UUID
    chunk_id: int
    position: int
    is_guest: bool
    key_id: int | None = None
    sequence: int = 0


# --- the SQL form (appending_sql.py) ----------------------------------------------------------------------------------
def rules_as_values(rules: RedactionRules) -> tuple[bool, str]:
    """Return the rules as a statement compares them with the client's: whether cards go, and the patterns as JSON."""
    return rules.cards, orjson.dumps(rules.patterns).decode() if rules.patterns else "[]"


def _append_in_cluster(statement: str, values: Sequence[Any], client_id: UUID) -> tuple[Any, ...] | None:
    """Run an appending statement of the client in two parts, and return its row."""
    with transaction.atomic():
        found = row(without_chunk(statement), *values)
        if found is None:
            return None
        conversation_id, position, is_guest, key_id, login, *_ = found
        channel, _, at, text, message_id, key, metadata, *_ = values
        role = Role.VOICE if channel == Channel.VOICE else Role.USER
        said = (role.value, text, message_id, key, metadata, at)
        [chunk] = rows(INSERT_CHUNK, client_id, conversation_id, position, *said, login)
    return conversation_id, chunk[0], position, is_guest, key_id


async def _append(
    statements: Statements, statement: str, many: Many, values: Sequence[Any], client_id: UUID
) -> tuple[Any, ...] | None:
    if not is_known_cluster():
        return await statements.row(statement, *values, many=many)
    async with answering(client_id):
        return await statements.in_thread(_append_in_cluster, statement, values, client_id)


async def append_by_key(
    statements: Statements,
    chunk: NewChunk,
    key_hash: bytes,
    client_id: UUID,
    person: Person,
    rules: RedactionRules,
) -> Appended | None:
    """Append what the holder of an API key passes on, cleaned by `rules`; None if nothing was done.

    Raises IntegrityError where the same message was appended at the same moment.
    """
    who = (person.user_id, person.phone, person.name)
    values = (*chunk, key_hash, client_id, *who, *rules_as_values(rules))
    found = await _append(statements, BY_KEY, MANY_BY_KEY, values, client_id)
    return Appended(*found) if found else None


async def append_by_address(
    statements: Statements,
    chunk: NewChunk,
    client_id: UUID,
    address: str,
    phone: str | None,
    name: str,
    aliases: list[str],
    account_version: str | None = None,
) -> Appended | None:
    """Append what a provider delivered; None if nothing was done.

    account_version: ACCOUNT_VERSION of the account as it was read; nothing is done if the account or its client changed
    since. None: whatever it is now.

    Raises IntegrityError where the same message was appended at the same moment.
    """
    who = (client_id, address, phone, name, aliases)
    statement = BY_ADDRESS_ANYWAY if is_known_cluster() else BY_ADDRESS
    values = (*chunk, *who, account_version)
    found = await _append(statements, statement, MANY_BY_ADDRESS, values, client_id)
    return Appended(*found) if found else None


def append_each_by_address(
    client_id: UUID, messages: Sequence[tuple[NewChunk, str, str | None, str, list[str]]]
) -> list[Appended | None]:
    """Do what `append_by_address` does for many, in this order, and return what it returns for each.

    messages: chunk, address, phone, name and aliases. Call it in a transaction.
    """
    values = [(*chunk, client_id, *person, None) for chunk, *person in messages]
    if is_known_cluster():
        each = [_append_in_cluster(BY_ADDRESS_ANYWAY, one, client_id) for one in values]
        return [Appended(*found) if found else None for found in each]
    return [Appended(*found[0]) if found else None for found in rows_of_each(BY_ADDRESS, values)]


# --- the general form -------------------------------------------------------------------------------------------------
def append_inbound(conversation: Conversation, chunk: NewChunk, *, answer: bool = True) -> Appended:
    """Append a person's message to the locked open conversation. Call it within `locking.saving`.

    answer: a reply is owed for it
    """
    note_inbound(conversation, chunk.at, answer=answer)
    [written] = write_chunks(
        conversation,
        [(chunk.role, chunk.text)],
        chunk.at,
        message_id=chunk.message_id,
        dedupe_key=chunk.dedupe_key,
        metadata=orjson.loads(chunk.metadata),
    )
    sequence = conversation.inbound_sequence
    return Appended(conversation.pk, written.pk, written.position, conversation.is_guest, sequence=sequence)


def write_chunks(
    conversation: Conversation, texts: Iterable[tuple[str, str]], now: datetime, **fields: Any
) -> list[Chunk]:
    """Write chunks of (role, content) at the next positions and return them. Call it within `locking.saving`.

    The client's redaction rules are applied to everything but system chunks. `fields` are further fields of Chunk.
    """
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
        for offset, (role, content) in enumerate(texts, start=1)
    ]
    conversation.last_position += len(chunks)
    conversation.last_message_at = max(conversation.last_message_at, now)
    insert(chunks)
    return chunks


def note_inbound(conversation: Conversation, now: datetime, *, answer: bool = True) -> None:
    """Note on the locked conversation that the person wrote. Call it within `locking.saving`.

    A stale conversation becomes active again. A reply is owed where the client's assistant replies, or by the colleague
    who has the conversation; not if `answer` is False, because somebody else answers.
    """
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
    """Note on the locked conversation that no reply is owed and that earlier failures no longer count.

    Call it within `locking.saving`.
    """
    conversation.reply_owed = False
    conversation.burst_began_at = None
    conversation.reply_attempts = conversation.reply_crashes = 0
    conversation.drafts_overtaken = 0
