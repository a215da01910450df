"""Opening a conversation in a cluster, by a statement for each row.

There an INSERT of what a common table expression found needs every server, so one that is away would keep all clients
from opening conversations. The rows are those of the one statement (opening.py), which also says why they are locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction

from conversations.services.core.sql import column, row


class _Beginning(NamedTuple):
    auto_reply: bool
    default_goal: str
    key_id: int | None
    contact_id: UUID | None
    quiet: Any
    account_id: UUID | None
    assistant_id: UUID | None
    system_prompt: str
    device_id: int | None
    login_id: int | None
    memory: str
    recalled: str


# Every value is named, so that PostgreSQL knows the type of each.
_LOOK = """
SELECT b.auto_reply, b.default_goal, b.key_id, b.contact_id, b.quiet, b.account_id, b.assistant_id, b.system_prompt,
    b.device_id, b.login_id, b.memory, b.recalled::text, $5::text, $7::text, $8::text, $9::text, $10::uuid, $11::uuid,
    $12::text, $13::bigint, $14::text, $15::text, $16::timestamptz, $17::text, $18::text, $19::text, $20::jsonb,
    $21::text, $22::text
FROM beginning b"""
_CONTACT = """
    INSERT INTO contacts (id, client_id, user_id, phone, name, is_guest) VALUES ($1, $2, $3, $4, $5, $6)
    RETURNING is_guest"""
_KNOWN = "SELECT is_guest FROM contacts WHERE client_id = $1 AND id = $2 AND merged_into_id IS NULL FOR SHARE"
_IDENTITY = """
    INSERT INTO contact_identities (contact_id, client_id, channel, kind, address) VALUES ($1, $2, $3, 'phone', $4)
    RETURNING id"""
_SESSION = """
    INSERT INTO conversations
        (id, client_id, contact_id, device_id, assistant_id, channel_account_id, channel, thread, is_guest, goal,
         summary, started_at, last_message_at, last_position, inbound_sequence, reply_owed, burst_began_at,
         reply_due_at, login_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16, $17, $18)
    RETURNING id"""
_EVENT = """
    INSERT INTO conversation_events
        (client_id, conversation_id, kind, from_status, to_status, cause, actor, actor_name, data, created_at)
    VALUES ($1, $2, 'opened', '', 'active', '', $3, $4, '{}', $5)
    RETURNING id"""
_CHUNK = """
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10)
    RETURNING id"""


def open_in_parts(beginning: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
    """Run an opening statement in parts, and return its row: None if nothing was done.

    beginning: its common table expression, up to the bracket that closes it; values: those of the whole
    """
    with transaction.atomic():
        found = row(beginning + _LOOK, *values)
        return _write(_Beginning(*found[:12]), values) if found else None


def _write(begins: _Beginning, values: Sequence[Any]) -> tuple[Any, ...] | None:
    client_id, channel, _, _, _, key, thread, _, _, session_id, _, _, device_id, goal, summary, at, *said = values
    role, text, message_id, metadata, actor, actor_name = said[:6]
    who = _lock_or_make_contact(begins, values)
    if who is None:
        return None
    contact_id, is_guest, identity_id = who
    owed, last = begins.auto_reply and text != "", 3 if text else 2
    row(
        _SESSION,
        *(session_id, client_id, contact_id, identity_id or device_id or begins.device_id, begins.assistant_id),
        *(begins.account_id, channel, thread, is_guest, goal or begins.default_goal, summary, at, last, last - 2),
        *(owed, at if text else None, at + begins.quiet if owed else None, begins.login_id),
    )
    row(_EVENT, client_id, session_id, actor, actor_name, at)
    chunks = [
        ("system", begins.system_prompt, "", None, "{}"),
        ("memory", begins.memory, "", None, begins.recalled),
        (role, text, message_id, key, metadata),
    ]
    chunk_id = None
    for position, chunk in enumerate(chunks[:last], 1):
        [chunk_id] = column(_CHUNK, client_id, session_id, position, *chunk, at, begins.login_id)
    return session_id, chunk_id, last, is_guest, begins.key_id


def _lock_or_make_contact(begins: _Beginning, values: Sequence[Any]) -> tuple[UUID, bool, int | None] | None:
    """Return the contact's id, whether it is a guest, and its new identity; None if it is an alias by now."""
    client_id, channel, _, _, user_id, _, _, phone, name, _, new_id, address, *_ = values
    if begins.contact_id:
        known = column(_KNOWN, client_id, begins.contact_id)
        return (begins.contact_id, known[0], None) if known else None
    [is_guest] = column(_CONTACT, new_id, client_id, user_id, phone, name, phone is None)
    identity = column(_IDENTITY, new_id, client_id, channel, address) if address else [None]
    return new_id, is_guest, identity[0]
