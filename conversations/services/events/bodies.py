"""The bodies of events, read from their sources each time: a correction, a redaction or an erasure reaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from conversations.models import Event, EventKind
from conversations.services.core.json import dumps
from conversations.services.core.sql import rows

_CONVERSATIONS = """
    SELECT s.id, s.channel, s.thread, s.status, s.contact_id, p.user_id, s.summary
    FROM conversations s JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
    WHERE s.client_id = $1 AND s.id = ANY ($2::uuid[])"""
_CHUNKS = """
    SELECT c.id, c.position, c.role, c.content, c.message_id, c.metadata::text, c.created_at,
           c.author_id IS NOT NULL OR (c.role = 'ai' AND c.metadata ? 'colleague')
    FROM conversation_chunks c JOIN conversations s ON s.client_id = c.client_id AND s.id = c.conversation_id
    WHERE c.client_id = $1 AND c.id = ANY ($2::bigint[])"""
_LINES = """
    SELECT e.id, e.kind, e.actor, e.actor_name, e.cause, e.from_status, e.to_status, e.data::text
    FROM conversation_events e JOIN conversations s ON s.client_id = e.client_id AND s.id = e.conversation_id
    WHERE e.client_id = $1 AND e.id = ANY ($2::bigint[])"""
_NOTES = "SELECT id, data::text FROM event_notes WHERE client_id = $1 AND id = ANY ($2::bigint[])"
_MESSAGES = """
    SELECT m.id::text, m.chunk_id, m.part, m.parts, m.code, m.provider_message_id
    FROM conversation_messages m JOIN conversations s ON s.client_id = m.client_id AND s.id = m.conversation_id
    WHERE m.client_id = $1 AND m.id = ANY ($2::uuid[])"""


def event_id(client_id: UUID, position: int) -> str:
    """Return the event's id, the same each time that it is posted."""
    return f"evt_{client_id.hex}_{position}"


def as_bytes(body: Mapping[str, Any]) -> bytes:
    """Return the body as it is posted."""
    return dumps(body)


def bodies(client_id: UUID, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the body of each of the client's events: id, type, timestamp, client_id, position, data.

    `data.deleted` is true where what the event told of was deleted since.
    """
    sources = _Sources(client_id, events)
    return [
        {
            "id": event_id(client_id, each.position),
            "type": each.kind,
            "timestamp": each.occurred_at.isoformat(),
            "client_id": str(client_id),
            "position": each.position,
            "data": sources.data_of(each),
        }
        for each in events
    ]


class _Sources:
    """The rows that some events of a client tell of."""

    def __init__(self, client_id: UUID, events: Sequence[Event]) -> None:
        def of(statement: str, ids: Sequence[Any]) -> dict[Any, tuple[Any, ...]]:
            return {pk: tuple(values) for pk, *values in rows(statement, client_id, ids)} if ids else {}

        def ids(source: str) -> list[int]:
            return [each.source_id for each in events if each.source == source]

        self._conversations = of(_CONVERSATIONS, [each.conversation_id for each in events if each.conversation_id])
        self._chunks = of(_CHUNKS, ids(Event.Source.CHUNK))
        self._lines = of(_LINES, ids(Event.Source.LEDGER))
        self._notes = {pk: orjson.loads(data) for pk, (data,) in of(_NOTES, ids(Event.Source.NOTE)).items()}
        told = [self._notes.get(each.source_id, {}) for each in events if each.source == Event.Source.NOTE]
        told += [orjson.loads(line[6]) for line in self._lines.values()]
        self._messages = of(_MESSAGES, [data["message_id"] for data in told if isinstance(data.get("message_id"), str)])

    def data_of(self, event: Event) -> dict[str, Any]:
        about = self._conversation(event)
        if event.source == Event.Source.CHUNK:
            return about | self._chunk(event)
        if event.source == Event.Source.LEDGER:
            return about | self._line(event)
        note: dict[str, Any] = self._notes.get(event.source_id, {"deleted": True})
        return about | self._with_message(note, event)

    def _conversation(self, event: Event) -> dict[str, Any]:
        if event.conversation_id is None:
            return {}
        found = self._conversations.get(event.conversation_id)
        if found is None:
            return {"conversation_id": str(event.conversation_id), "deleted": True}
        channel, thread, status, contact_id, user_id, summary = found
        about = {
            "conversation_id": str(event.conversation_id),
            "channel": channel,
            "thread": thread,
            "status": status,
            "contact_id": str(contact_id),
            "user_id": user_id,
        }
        return {**about, "summary": summary} if event.kind == EventKind.SUMMARY else about

    def _chunk(self, event: Event) -> dict[str, Any]:
        found = self._chunks.get(event.source_id)
        if found is None:
            return {"chunk_id": event.source_id, "deleted": True}
        position, role, content, message_id, metadata, created_at, by_staff = found
        return {
            "message": {
                "id": event.source_id,
                "position": position,
                "role": role,
                "content": content,
                "by_staff": by_staff,
                "message_id": message_id,
                "metadata": orjson.loads(metadata),
                "created_at": _iso(created_at),
            }
        }

    def _line(self, event: Event) -> dict[str, Any]:
        found = self._lines.get(event.source_id)
        if found is None:
            return {"deleted": True}
        kind, actor, actor_name, cause, before, after, data = found
        line = {
            "what": kind,
            "actor": actor,
            "actor_name": actor_name,
            "cause": cause,
            "from_status": before,
            "to_status": after,
        }
        facts = orjson.loads(data)
        if event.kind == EventKind.DELIVERY:
            return self._with_message({**facts, "status": kind.removeprefix("message_")}, event)
        return {**line, "facts": facts}

    def _with_message(self, told: dict[str, Any], event: Event) -> dict[str, Any]:
        """Return the facts; those of a message that was sent with its chunk and part."""
        if event.kind != EventKind.DELIVERY:
            return told
        message: dict[str, Any] = {"id": told.get("message_id"), "status": told.get("status")}
        if found := self._messages.get(told.get("message_id")):
            chunk_id, part, parts, code, provider_message_id = found
            message |= {"chunk_id": chunk_id, "part": part, "parts": parts, "code": code}
            message |= {"provider_message_id": provider_message_id}
        return {"delivery": message}


def _iso(at: datetime) -> str:
    return at.isoformat()
