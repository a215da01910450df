"""The ledger of a conversation: its events, with who caused them and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import Assistant, Conversation, ConversationEvent
from conversations.services.core.sql import insert, rows

Kind = ConversationEvent.Actor


@dataclass(frozen=True, slots=True)
class Actor:
    """The cause of an event: `kind` is contact, assistant, staff, api or system; `name` of a user, key or job."""

    kind: str
    name: str = ""
    user_id: int | None = None


CONTACT = Actor(Kind.CONTACT)
ASSISTANT = Actor(Kind.ASSISTANT)
SYSTEM = Actor(Kind.SYSTEM)


def assistant_actor(assistant: Assistant | None) -> Actor:
    """Return the assistant as the cause of an event."""
    return Actor(Kind.ASSISTANT, assistant.key) if assistant else ASSISTANT


def record(
    conversation: Conversation,
    kind: str,
    actor: Actor,
    *,
    cause: str = "",
    from_status: str = "",
    to_status: str = "",
    **data: Any,
) -> None:
    """Write one line in the ledger of the conversation. `data` are further facts, kept as JSON."""
    record_in(
        conversation.client_id,
        conversation.pk,
        kind,
        actor,
        cause=cause,
        from_status=from_status,
        to_status=to_status,
        **data,
    )


def record_in(
    client_id: UUID,
    conversation_id: UUID,
    kind: str,
    actor: Actor,
    *,
    cause: str = "",
    from_status: str = "",
    to_status: str = "",
    **data: Any,
) -> None:
    """Write one line in the ledger of the client's conversation of that id, as `record` does."""
    line = ConversationEvent(
        client_id=client_id,
        conversation_id=conversation_id,
        kind=kind,
        actor=actor.kind,
        actor_name=actor.name,
        cause=cause,
        from_status=from_status,
        to_status=to_status,
        data=data,
    )
    insert([line])


def events_sql(
    kind: str,
    source: str,
    *,
    actor: str,
    actor_name: str,
    cause: str = "''",
    from_status: str = "''",
    to_status: str = "''",
    data: str = "'{}'",
    at: str = "$1",
) -> str:
    """Return the INSERT that writes a line of this kind for every conversation of `source` (`client_id` and `id`).

    source: a table or common table expression
    all others: SQL expressions over `source`; `at` is the time
    """
    return f"""
        INSERT INTO conversation_events
            (client_id, conversation_id, kind, from_status, to_status, cause, actor, actor_name, data, created_at)
        SELECT client_id, id, '{kind}', {from_status}, {to_status}, {cause}, {actor}, {actor_name}, {data}, {at}
        FROM {source}"""


_LINE = """
    INSERT INTO conversation_events
        (client_id, conversation_id, kind, from_status, to_status, cause, actor, actor_name, data, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10)
    RETURNING id"""


def write_line(
    client_id: UUID,
    conversation_id: UUID,
    kind: str,
    *,
    actor: str,
    actor_name: str,
    at: datetime,
    cause: str = "",
    from_status: str = "",
    to_status: str = "",
    data: str = "{}",
) -> None:
    """Write the line that `events_sql` writes for one conversation, by a statement of its own. `data` is JSON."""
    rows(_LINE, client_id, conversation_id, kind, from_status, to_status, cause, actor, actor_name, data, at)
