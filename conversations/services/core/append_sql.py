"""Appending to an active session: one prepared statement, whichever door the message came by.

It does nothing (and the slow path in inbound.py takes over) unless everything is as it nearly always is: the caller
and the person are known, there is nothing new to learn of the person, their session is active, the message was not
here before, and it was cleaned by the rules that the client has now (services/redaction.py). The row lock of the UPDATE
puts simultaneous messages in line, so positions have no gaps. Two deliveries of one message at the same instant both
pass the look for duplicates (each has its own snapshot): the second hits the unique index and its whole statement is
undone, position and time included.

The reply is due when nothing more came for the channel's quiet window, and at the latest `longest_wait` after the first
message that is not answered (`burst_began_at`); services/session/transcript.py says the same for the slow path.

The plan is prepared once and kept, perhaps since the tables were small, when every index looks as good as another. So
it is written such that only the right one fits: the session is looked up by a subquery, not by a join, which leaves
PostgreSQL no other way than from the person to the session; and channel and status are compared as expressions, so that
the indexes which list all sessions of a channel or status are of no use. `status IN` is what the index of open sessions
(`one_open_conversation`) says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from channels_out.kinds import Channel
from conversations.services.core.sql import row
from conversations.services.tenants.account_cache import ACCOUNT_VERSION
from memory.redaction import Rules


def quiet_window(channel: str) -> str:
    """In SQL: how long client c waits on the channel after a message for another."""
    return f"COALESCE((c.quiet_windows->>{channel}::text)::float8, 0) * interval '1 second'"


_BY_KEY = """
WITH person AS (
    SELECT p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet} AS quiet, c.longest_wait, k.id AS key_id, NULL::bigint AS device_id
    FROM api_keys k
    JOIN clients c ON c.id = k.client_id AND c.is_active
    JOIN contacts p ON p.client_id = c.id AND p.user_id = $11
    WHERE k.key_hash = $9 AND k.revoked_at IS NULL AND c.id = $10
      AND ($12::text IS NULL OR p.phone = $12) AND ($13::text = '' OR p.name = $13)
      AND c.redact_cards = $14 AND c.redaction_patterns = $15::jsonb
)"""

_BY_ADDRESS = """
WITH person AS (
    SELECT p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet} AS quiet, c.longest_wait, NULL::bigint AS key_id, i.id AS device_id
    FROM contact_identities i
    JOIN clients c ON c.id = i.client_id AND c.is_active
    JOIN contacts p ON p.id = i.contact_id
    WHERE i.client_id = $9 AND i.channel = $1 AND i.address = $10
      AND ($11::text IS NULL OR p.phone IS NOT NULL) AND ($12::text = '' OR p.name <> '')
      AND (SELECT count(*) FROM contact_identities o
           WHERE o.client_id = $9 AND o.channel = $1 AND o.address = ANY($13::text[])
             AND o.contact_id = i.contact_id) = cardinality($13::text[])
      AND ($14::text IS NULL OR $14 = (SELECT {account_version} FROM channel_accounts a WHERE a.id = $8))
)"""

_APPEND = """
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
            $3 + person.quiet,
            CASE WHEN s.reply_owed THEN COALESCE(s.burst_began_at, $3) ELSE $3 END + person.longest_wait)
    FROM person
    WHERE s.contact_id = (SELECT id FROM person) AND s.thread = $2 AND s.status IN ('active', 'stale')
      AND s.channel || '' = $1 AND s.status || '' = 'active'
      AND NOT EXISTS (SELECT FROM conversation_chunks WHERE dedupe_key = $6)
      AND NOT EXISTS (SELECT FROM message_tombstones WHERE dedupe_key = $6)
    RETURNING s.id, s.last_position, s.is_guest, person.key_id
), chunk AS (
    INSERT INTO conversation_chunks
        (conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at)
    SELECT id, last_position, CASE WHEN $1 = 'voice' THEN 'voice' ELSE 'user' END, $4, $5, $6, $7::jsonb, $3
    FROM session
    RETURNING id
)
SELECT session.id, chunk.id, session.last_position, session.is_guest, session.key_id FROM session, chunk"""

BY_KEY = _BY_KEY.format(quiet=quiet_window("$1")) + _APPEND
BY_ADDRESS = _BY_ADDRESS.format(quiet=quiet_window("$1"), account_version=ACCOUNT_VERSION) + _APPEND


def as_values(rules: Rules) -> tuple[bool, str]:
    """The rules as a statement compares them with the client's."""
    return rules.cards, orjson.dumps(rules.patterns).decode() if rules.patterns else "[]"


def dedupe_key(scope: str, message_id: str) -> UUID | None:
    """128 bits over a message's id and the scope in which its sender keeps ids unique; None without an id."""
    if not message_id:
        return None
    return UUID(bytes=hashlib.blake2b(f"{scope}\0{message_id}".encode(), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said, and where. `metadata` is JSON text; `dedupe_key` None means that it cannot come twice."""

    channel: str
    thread: str
    at: datetime
    text: str
    message_id: str
    dedupe_key: UUID | None
    metadata: str = "{}"
    channel_account_id: UUID | None = None

    @property
    def role(self) -> str:
        """On the voice channel the caller's words are voice chunks, by whichever door they came."""
        return "voice" if self.channel == Channel.VOICE else "user"

    def values(self) -> tuple[object, ...]:
        """$1 to $8."""
        return (
            *(self.channel, self.thread, self.at, self.text),
            *(self.message_id, self.dedupe_key, self.metadata, self.channel_account_id),
        )


@dataclass(frozen=True, slots=True)
class Appended:
    """The new chunk. `key_id` is the API key that was used, where one was."""

    conversation_id: UUID
    chunk_id: int
    position: int
    is_guest: bool
    key_id: int | None


def append_by_key(
    said: Said, key_hash: bytes, client_id: UUID, user_id: str, phone: str | None, name: str, rules: Rules
) -> Appended | None:
    """Append what the holder of an API key passes on, cleaned by `rules`. None: nothing was done. Raises IntegrityError
    on a race."""
    found = row(BY_KEY, *said.values(), key_hash, client_id, user_id, phone, name, *as_values(rules))
    return Appended(*found) if found else None


def append_by_address(
    said: Said,
    client_id: UUID,
    address: str,
    phone: str | None,
    name: str,
    aliases: list[str],
    account_version: str | None = None,
) -> Appended | None:
    """Append what a provider delivered, if the account and its client are still of this version, where one is given.
    None: nothing was done. Raises IntegrityError on a race."""
    found = row(BY_ADDRESS, *said.values(), client_id, address, phone, name, aliases, account_version)
    return Appended(*found) if found else None
