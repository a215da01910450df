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

The plan is prepared once and kept, perhaps since the tables were small, when every index looks as good as another. So
it is written such that only the right one fits (`open_conversation_sql`), and the conversation is looked up by a
subquery, not by a join, which leaves PostgreSQL no other way than from the person to the conversation. What the UPDATE
checks once more, because somebody may change it while we wait for the row, is written such that no index fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

from channels_out.kinds import Channel
from conversations.models import Chunk, Conversation, Role, Scope, Status
from conversations.services.core import key_sql, redaction
from conversations.services.core.cluster import answering, is_known_cluster
from conversations.services.core.dedupe import is_new_sql
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.person import Person
from conversations.services.core.sql import insert, later, row, rows, rows_of_each
from conversations.services.core.statements import Statements
from memory.redaction import RedactionRules

SPOKEN_BY_PEOPLE = (Role.USER, Role.VOICE)

# The version of an account is where its row and its client's lie and who wrote them: PostgreSQL never changes a row in
# place. `a` is the account, `c` its client.
ACCOUNT_VERSION = "a.xmin::text || a.ctid::text || c.xmin::text || c.ctid::text"


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A person's message on its way into a conversation.

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

    def values(self) -> tuple[object, ...]:
        """Return the values $1 to $8 of the appending statements."""
        return (
            *(self.channel, self.thread, self.at, self.text),
            *(self.message_id, self.dedupe_key, self.metadata, self.channel_account_id),
        )


@dataclass(frozen=True, slots=True)
class Appended:
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


# --- the SQL form -----------------------------------------------------------------------------------------------------
def quiet_window(channel: str) -> str:
    """Return SQL for how long client `c` waits for another message on the channel, a placeholder."""
    return f"COALESCE((c.quiet_windows->>{channel}::text)::float8, 0) * interval '1 second'"


def contact_sql(client: str, user_id: str) -> str:
    """Return the subquery for the client's contact of that user id.

    Of all indexes that fit, the index `one_contact_per_user_id` alone also gives the order that is asked for. So it is
    chosen on tables without statistics too, where every index that begins with the client seems to find one row. The
    order needs a range: where a column is equal to a value, PostgreSQL knows that there is nothing to order.
    """
    return f"""(
        SELECT n.* FROM contacts n
        WHERE n.client_id = {client} AND n.user_id >= {user_id} AND n.user_id <= {user_id}
        ORDER BY n.user_id LIMIT 1)"""


def open_conversation_sql(client: str, contact: str, channel: str, thread: str) -> str:
    """Return the subquery for the id of the contact's open conversation on the channel in the thread.

    It finds the one row of an index, as `contact_sql` says.
    """
    return f"""(
        SELECT o.id FROM conversations o
        WHERE o.client_id = {client} AND o.contact_id = {contact} AND o.channel = {channel}
          AND o.thread >= {thread} AND o.thread <= {thread}
          AND o.status IN ('active', 'stale')
        ORDER BY o.thread LIMIT 1)"""


_BY_KEY = """
WITH person AS (
    SELECT p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet} AS quiet, c.longest_wait, k.id AS key_id, NULL::bigint AS device_id
    FROM api_keys k
    JOIN clients c ON c.id = k.client_id AND c.is_active
    CROSS JOIN {contact} p
    WHERE k.key_hash = $9 AND {may_write} AND c.id = $10
      AND ($12::text IS NULL OR p.phone = $12) AND ($13::text = '' OR p.name = $13)
      AND c.redact_cards = $14 AND c.redaction_patterns = $15::jsonb
)"""

# The address finds the one row of its index, as `contact_sql` says; OFFSET 0 has the contact looked up by its whole
# key.
_BY_ADDRESS = """
WITH person AS (
    SELECT p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet} AS quiet, c.longest_wait, NULL::bigint AS key_id, i.id AS device_id
    FROM (
        SELECT d.id, d.contact_id FROM contact_identities d
        WHERE d.client_id = $9 AND d.channel = $1 AND d.address >= $10 AND d.address <= $10
        ORDER BY d.address LIMIT 1) i
    JOIN clients c ON c.id = $9 AND c.is_active
    CROSS JOIN LATERAL (
        SELECT k.id, k.phone, k.name, k.opted_out FROM contacts k
        WHERE k.client_id = $9 AND k.id = i.contact_id OFFSET 0) p
    WHERE ($11::text IS NULL OR p.phone IS NOT NULL) AND ($12::text = '' OR p.name <> '')
      AND (SELECT count(*) FROM contact_identities o
           WHERE o.client_id = $9 AND o.channel = $1 AND o.address = ANY($13::text[])
             AND o.contact_id = i.contact_id) = cardinality($13::text[])
      AND {unchanged}
)"""


def _append_sql(client: str, more: str = "") -> str:
    """Return the rest of a statement that appends.

    client: the placeholder of the client's id
    more: further conditions of the conversation `s`
    """
    return f"""
, session AS (
    UPDATE conversations s
    SET last_message_at = GREATEST(s.last_message_at, $3),
        last_position = s.last_position + 1,
        inbound_sequence = s.inbound_sequence + 1,
        channel_account_id = COALESCE($8, s.channel_account_id),
        device_id = COALESCE(person.device_id, s.device_id),
        reply_owed = s.reply_owed OR person.auto_reply,
        burst_began_at = CASE WHEN s.reply_owed THEN COALESCE(s.burst_began_at, $3) ELSE $3 END,
        reply_due_at = LEAST(
            {later("$3", "person.quiet")},
            {later("CASE WHEN s.reply_owed THEN COALESCE(s.burst_began_at, $3) ELSE $3 END", "person.longest_wait")})
    FROM person
    WHERE s.client_id = {client} AND s.id = {open_conversation_sql(client, "(SELECT id FROM person)", "$1", "$2")}
      AND s.contact_id IS NOT DISTINCT FROM person.id AND s.status || '' = 'active'
      AND {is_new_sql(client)}{more}
    RETURNING s.id, s.last_position, s.is_guest, person.key_id, s.inbound_sequence, s.login_id
), chunk AS (
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    SELECT {client}, id, last_position, CASE WHEN $1 = 'voice' THEN 'voice' ELSE 'user' END, $4, $5, $6, $7::jsonb, $3,
           login_id
    FROM session
    RETURNING id
)
SELECT session.id, chunk.id, session.last_position, session.is_guest, session.key_id, session.inbound_sequence
FROM session, chunk"""


# A message to another of the client's accounts is for the general form: see threads.py.
_SAME_ACCOUNT = """
      AND ($8::uuid IS NULL OR COALESCE(s.channel_account_id, $8) = $8)"""

BY_KEY = _BY_KEY.format(
    quiet=quiet_window("$1"), contact=contact_sql("$10", "$11"), may_write=key_sql.may(Scope.MESSAGES_WRITE)
) + _append_sql("$10")
_UNCHANGED = f"($14::text IS NULL OR $14 = (SELECT {ACCOUNT_VERSION} FROM channel_accounts a WHERE a.id = $8))"
_TO_SAME_ACCOUNT = _append_sql("$9", _SAME_ACCOUNT)
BY_ADDRESS = _BY_ADDRESS.format(quiet=quiet_window("$1"), unchanged=_UNCHANGED) + _TO_SAME_ACCOUNT
# The same whatever has become of the account: a cluster knows no version of rows.
BY_ADDRESS_ANYWAY = _BY_ADDRESS.format(quiet=quiet_window("$1"), unchanged="$14::text IS NULL") + _TO_SAME_ACCOUNT


def rules_as_values(rules: RedactionRules) -> tuple[bool, str]:
    """Return the rules as a statement compares them with the client's: whether cards go, and the patterns as JSON."""
    return rules.cards, orjson.dumps(rules.patterns).decode() if rules.patterns else "[]"


# In a cluster an INSERT of what a CTE found needs every server. So a chunk is inserted by a statement of its own there.
_CHUNK = "), chunk AS ("
_FOUND = """)
SELECT session.id, session.last_position, session.is_guest, session.key_id, session.login_id,
    $4::text, $5::text, $6::uuid, $7::jsonb FROM session"""
_INSERT = """
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10) RETURNING id"""


def _append_in_cluster(statement: str, values: Sequence[Any], client_id: UUID) -> tuple[Any, ...] | None:
    """Run an appending statement of the client in two parts, and return its row."""
    with transaction.atomic():
        found = row(statement.partition(_CHUNK)[0] + _FOUND, *values)
        if found is None:
            return None
        conversation_id, position, is_guest, key_id, login, *_ = found
        channel, _, at, text, message_id, key, metadata, *_ = values
        role = Role.VOICE if channel == Channel.VOICE else Role.USER
        said = (role.value, text, message_id, key, metadata, at)
        [chunk] = rows(_INSERT, client_id, conversation_id, position, *said, login)
    return conversation_id, chunk[0], position, is_guest, key_id


async def _append(
    statements: Statements, statement: str, values: Sequence[Any], client_id: UUID
) -> tuple[Any, ...] | None:
    if not is_known_cluster():
        return await statements.row(statement, *values)
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
    values = (*chunk.values(), key_hash, client_id, *who, *rules_as_values(rules))
    found = await _append(statements, BY_KEY, values, client_id)
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
    found = await _append(statements, statement, (*chunk.values(), *who, account_version), client_id)
    return Appended(*found) if found else None


def append_each_by_address(
    client_id: UUID, messages: Sequence[tuple[NewChunk, str, str | None, str, list[str]]]
) -> list[Appended | None]:
    """Do what `append_by_address` does for many, in this order, and return what it returns for each.

    messages: chunk, address, phone, name and aliases. Call it in a transaction.
    """
    values = [(*chunk.values(), client_id, *person, None) for chunk, *person in messages]
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
