"""Notes of what events tell and neither a chunk nor the ledger holds: receipts, changed and erased contacts.

A note is written in the transaction that makes it true. It gets its position later (services/events/numbering.py).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from conversations.models import EventKind, EventNote
from conversations.services.core.cluster import InsertSelect
from conversations.services.core.sql import insert

IS_READ = "EXISTS (SELECT FROM event_positions r WHERE r.client_id = s.client_id AND r.is_read)"


def note(client_id: UUID, kind: EventKind, conversation_id: UUID | None = None, **data: Any) -> None:
    """Write a note of the client. `data` are ids and codes, and no words of people."""
    insert([EventNote(client_id=client_id, kind=kind.value, conversation_id=conversation_id, data=data)])


def note_contact(client_id: UUID, contact_id: UUID, *changed: str, **data: Any) -> None:
    """Note that what is known of the contact changed. `changed` are the names of what did, `data` further ids."""
    note(client_id, EventKind.CONTACT, contact_id=str(contact_id), changed=list(changed), **data)


def deliveries_sql(moved: str) -> str:
    """Return the INSERT that notes a delivery for every message that `moved` names, where somebody reads the events.

    moved: a table or common table expression with the columns `client_id`, `message` and `status`
    """
    return f"""
        INSERT INTO event_notes (client_id, kind, conversation_id, data)
        SELECT s.client_id, '{EventKind.DELIVERY}', s.id, jsonb_build_object('message_id', m.id, 'status', moved.status)
        FROM {moved} moved
        JOIN conversation_messages m ON m.client_id = moved.client_id AND m.id = moved.message
        JOIN conversations s ON s.client_id = m.client_id AND s.id = m.conversation_id
        WHERE {IS_READ}"""


# The same for message $2 of client $1, which reached the status $3.
_ONE = InsertSelect(
    "event_notes (client_id, kind, conversation_id, data)",
    f"""
    SELECT s.client_id, '{EventKind.DELIVERY}', s.id, jsonb_build_object('message_id', m.id, 'status', $3::text)
    FROM conversation_messages m JOIN conversations s ON s.client_id = m.client_id AND s.id = m.conversation_id
    WHERE m.client_id = $1 AND m.id = $2 AND {IS_READ}""",
    "RETURNING id",
)


def note_delivery(client_id: UUID, message_id: UUID, status: str) -> None:
    """Note that the message reached the status, where somebody reads the client's events."""
    _ONE.rows(client_id, message_id, status)
