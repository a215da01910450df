"""A new session: who answers, over which account, what is known at its beginning, and the first thing said.

A session, its chunks and its line in the ledger are inserted by one statement, whoever opens it. Of two that open the
same at once the unique index lets one in; the other's statement is undone as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from conversations.models import Role
from conversations.services.append import Said
from conversations.services.contacts import Person, phone_address
from conversations.services.database import row
from conversations.services.ledger import CONTACT, Actor

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."
NOTHING_KNOWN = "Nothing is known of this contact from earlier sessions."
SUMMARIES_RECALLED = 3
SUMMARY_CHARACTERS = 2_000

# What a first message needs to know, in one look: $1 the client, $2 the channel, $3 the account if one is named, then
# how the contact is found ({contact}). Summaries of sessions that are open do not count: they are not over yet.
_LOOK = """
SELECT c.id AS client_id, c.auto_reply, c.default_goal, {key} AS key_id,
       p.id AS contact_id, p.phone, p.name, COALESCE(p.is_guest, true) AS is_guest,
       a.id AS account_id, s.id AS assistant_id, s.system_prompt,
       (SELECT i.id FROM contact_identities i WHERE i.contact_id = p.id AND i.channel = $2 ORDER BY i.id DESC LIMIT 1),
       ARRAY(
           SELECT to_char(e.started_at, 'YYYY-MM-DD') || ': ' || left(e.summary, {characters})
           FROM conversations e
           WHERE e.contact_id = p.id AND e.summary <> '' AND e.status NOT IN ('active', 'stale')
           ORDER BY e.started_at DESC LIMIT {recalled}) AS summaries
FROM {source}
LEFT JOIN contacts p ON {contact}
LEFT JOIN LATERAL (
    SELECT id, assistant_id FROM channel_accounts
    WHERE client_id = c.id AND channel = $2 AND is_active AND ($3::uuid IS NULL OR id = $3)
    ORDER BY created_at LIMIT 1) a ON true
LEFT JOIN assistants s ON s.id = COALESCE(
    a.assistant_id, (SELECT d.id FROM assistants d WHERE d.client_id = c.id AND d.is_default))
WHERE c.id = $1"""

_SIZES = {"characters": SUMMARY_CHARACTERS, "recalled": SUMMARIES_RECALLED}

LOOK_BY_KEY = (
    _LOOK.format(
        key="k.id",
        source="api_keys k JOIN clients c ON c.id = k.client_id AND c.is_active",
        contact="p.client_id = c.id AND p.user_id = $5",
        **_SIZES,
    )
    + """ AND k.key_hash = $4 AND k.revoked_at IS NULL
  AND NOT EXISTS (SELECT FROM conversation_chunks WHERE dedupe_key = $6)
  AND NOT EXISTS (SELECT FROM message_tombstones WHERE dedupe_key = $6)
  AND NOT EXISTS (
      SELECT FROM conversations o
      WHERE o.contact_id = p.id AND o.channel = $2 AND o.thread = $7 AND o.status IN ('active', 'stale'))"""
)

LOOK_BY_CONTACT = _LOOK.format(key="NULL::bigint", source="clients c", contact="p.id = $4", **_SIZES)

# `known` puts it in line with a message on another channel that captures the phone: either that one finds this session
# and makes it no guest's, or this one waits for it and sees the phone. A guest's session would be deleted one day.
# The message is looked for once more: since the first look it may have come by another process, and its session may be
# over and gone. Then no session is inserted, and its event's foreign key undoes the rest.
# Each part asks for the one before, so that contact, session and chunks come in this order, as on the longer way in
# inbound.py: two deliveries of one message that lock them in different orders would wait for each other.
_OPEN = """
WITH contact AS (
    INSERT INTO contacts (id, client_id, user_id, phone, name, is_guest)
    SELECT $2, $3, $4, $5::text, $6, $5::text IS NULL WHERE $7::boolean
    RETURNING id
), known AS (
    SELECT is_guest FROM contacts WHERE id = $2 FOR SHARE
), identity AS (
    INSERT INTO contact_identities (contact_id, client_id, channel, kind, address)
    SELECT $2, $3, $8, 'phone', $9::text WHERE $7::boolean AND $9::text IS NOT NULL
    RETURNING id
), session AS (
    INSERT INTO conversations
        (id, client_id, contact_id, device_id, assistant_id, channel_account_id, channel, thread, is_guest, goal,
         summary, started_at, last_message_at, last_position, inbound_sequence, reply_owed, reply_due_at)
    SELECT $1, $3, COALESCE((SELECT id FROM contact), $2), COALESCE((SELECT id FROM identity), $10), $11, $12, $8, $13,
           COALESCE((SELECT is_guest FROM known), $14), $15, $16, $17, $17, cardinality($18::text[]),
           $20, $21::boolean, CASE WHEN $21::boolean THEN $17::timestamptz END
    WHERE NOT EXISTS (SELECT FROM conversation_chunks WHERE dedupe_key = $25)
      AND NOT EXISTS (SELECT FROM message_tombstones WHERE dedupe_key = $25)
    RETURNING id, is_guest
), event AS (
    INSERT INTO conversation_events (conversation_id, kind, to_status, actor, actor_name, created_at)
    VALUES ($1, 'opened', 'active', $22, $23, $17)
), chunks AS (
    INSERT INTO conversation_chunks
        (conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at)
    SELECT session.id, position, role, content,
           CASE WHEN position = 3 THEN $24 ELSE '' END, CASE WHEN position = 3 THEN $25::uuid END,
           CASE WHEN position = 3 THEN $26::jsonb ELSE '{}' END, $17
    FROM session, unnest($18::text[], $19::text[]) WITH ORDINALITY AS said (role, content, position)
    RETURNING id, position
)
SELECT chunks.id, session.is_guest FROM chunks, session ORDER BY position DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a session begins with; `contact_id` None: the contact is new."""

    client_id: UUID
    auto_reply: bool
    default_goal: str
    key_id: int | None
    contact_id: UUID | None
    phone: str | None
    name: str | None
    is_guest: bool
    account_id: UUID | None
    assistant_id: UUID | None
    system_prompt: str | None
    device_id: int | None
    summaries: Sequence[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """The new session and its newest chunk."""

    conversation_id: UUID
    chunk_id: int
    position: int
    is_guest: bool


def look_with_key(said: Said, person: Person, key_hash: bytes, client_id: UUID) -> Beginning | None:
    """What the person's new session would begin with; None if the key is not the client's, the message was here
    before, or a session is open."""
    values = (client_id, said.channel, said.channel_account_id, key_hash, person.user_id, said.dedupe_key, said.thread)
    found = row(LOOK_BY_KEY, *values)
    return Beginning(*found) if found else None


def open_for(beginning: Beginning, said: Said, person: Person) -> Opened:
    """The person, known or new, has an open session that begins with what they said.

    Raises IntegrityError where somebody else was first: with the contact, the session or the message.
    """
    new = beginning.contact_id is None
    phone = person.phone if new else beginning.phone
    return _open(
        beginning,
        said,
        actor=CONTACT,
        new_contact=(person.user_id, phone, person.name) if new else None,
        phone_address=phone_address(said.channel, phone),
    )


def open_conversation(
    client_id: UUID,
    contact_id: UUID,
    said: Said,
    *,
    actor: Actor,
    goal: str = "",
    summary: str = "",
    device_id: int | None = None,
) -> Opened:
    """The contact has an open session; with nothing said (empty text), it has its system and memory chunks alone.

    Raises IntegrityError if one is open already.
    """
    found = row(LOOK_BY_CONTACT, client_id, said.channel, said.channel_account_id, contact_id)
    if found is None:
        raise LookupError(f"client {client_id} is gone")
    beginning = Beginning(*found)
    return _open(beginning, said, actor=actor, goal=goal, summary=summary, device_id=device_id)


def _open(
    beginning: Beginning,
    said: Said,
    *,
    actor: Actor,
    goal: str = "",
    summary: str = "",
    device_id: int | None = None,
    new_contact: tuple[str, str | None, str] | None = None,
    phone_address: str | None = None,
) -> Opened:
    conversation_id, contact_id = uuid4(), beginning.contact_id or uuid4()
    user_id, phone, name = new_contact or ("", None, "")
    is_guest = phone is None if new_contact else beginning.is_guest
    chunks = [
        (Role.SYSTEM.value, beginning.system_prompt or DEFAULT_SYSTEM_PROMPT),
        (Role.MEMORY.value, opening_memory(beginning.summaries)),
        *([(said.role, said.text)] if said.text else []),
    ]
    found = row(
        _OPEN,
        *(conversation_id, contact_id, beginning.client_id, user_id, phone, name, new_contact is not None),
        *(said.channel, phone_address, device_id or beginning.device_id, beginning.assistant_id),
        *(beginning.account_id, said.thread, is_guest, goal or beginning.default_goal, summary, said.at),
        *([role for role, _ in chunks], [content for _, content in chunks]),
        *(1 if said.text else 0, bool(said.text) and beginning.auto_reply, actor.kind, actor.name),
        *(said.message_id, said.dedupe_key, said.metadata),
    )
    assert found is not None  # noqa: S101 - it inserts, or raises
    chunk_id, is_guest = found
    return Opened(conversation_id, chunk_id, len(chunks), is_guest)


def opening_memory(summaries: Iterable[str]) -> str:
    """What is known of the contact from the summaries of earlier sessions, newest first, or that nothing is."""
    lines = [f"- {summary}" for summary in summaries]
    return "\n".join(["From earlier sessions with this contact:", *lines]) if lines else NOTHING_KNOWN
