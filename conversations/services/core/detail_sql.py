"""Read one conversation as JSON with a single prepared statement, which takes as long for 10 chunks as for 10,000."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from conversations.models import Scope
from conversations.services.core import key_sql
from conversations.services.core.cluster import is_known_cluster
from conversations.services.core.sql import row
from conversations.services.core.statements import Statements

# The chunks are found by position. Its index leads with the conversation, so no other conversation's chunks are read.
# Files are beside the JSON, since their links are made for each answer: see media/shown.py. Most chunks have none.
_DETAIL = """
SELECT caller.key_id, json_build_object(
    'id', s.id, 'client_id', s.client_id, 'contact_id', s.contact_id, 'user_id', p.user_id,
    'channel', s.channel, 'thread', s.thread, 'status', s.status, 'is_guest', s.is_guest,
    'goal', s.goal, 'summary', s.summary, 'topic', s.topic, 'current_goal', s.current_goal, 'metadata', s.metadata,
    'variables', s.variables, 'chat_id', s.chat_id,
    'device', (SELECT i.address FROM contact_identities i WHERE i.client_id = s.client_id AND i.id = s.device_id),
    'assistant', (SELECT a.key FROM assistants a WHERE a.id = s.assistant_id),
    'started_at', s.started_at, 'last_message_at', s.last_message_at,
    'ended_at', s.ended_at, 'ended_by', s.ended_by, 'end_reason', s.end_reason,
    'reply_owed', s.reply_owed, 'reply_due_at', CASE WHEN s.reply_owed THEN s.reply_due_at END,
    'taken_over_at', s.taken_over_at, 'taken_over_by', s.taken_over_name, 'taken_over_until', s.taken_over_until,
    'assigned_to', COALESCE((
        SELECT u.username FROM desk_states d JOIN auth_user u ON u.id = d.assignee_id
        WHERE d.client_id = s.client_id AND d.conversation_id = s.id), ''),
    'team', COALESCE((
        SELECT q.name FROM desk_states d JOIN desk_teams q ON q.client_id = d.client_id AND q.id = d.team_id
        WHERE d.client_id = s.client_id AND d.conversation_id = s.id), ''),
    'needs_staff_since', s.needs_staff_since, 'needs_staff_reason', s.needs_staff_reason,
    'rating', (
        SELECT json_build_object('score', r.score, 'scale', r.scale, 'asked_at', r.asked_at, 'rated_at', r.rated_at,
            'comment', r.comment)
        FROM ratings r WHERE r.client_id = s.client_id AND r.conversation_id = s.id),
    'steps', (
        SELECT COALESCE(json_agg(json_build_object(
            'id', t.id, 'description', t.description, 'status', t.status,
            'created_at', t.created_at, 'updated_at', t.updated_at) ORDER BY t.rank, t.id), '[]')
        FROM conversation_steps t WHERE t.client_id = s.client_id AND t.conversation_id = s.id),
    'chunks', (
        SELECT COALESCE(json_agg(json_build_object(
            'id', c.id, 'position', c.position, 'role', c.role, 'content', c.content,
            'by_staff', c.author_id IS NOT NULL OR (c.role = 'ai' AND c.metadata ? 'colleague'),
            'message_id', c.message_id, 'metadata', c.metadata, 'created_at', c.created_at, 'activities', (
                SELECT COALESCE(json_agg(json_build_object(
                    'kind', a.kind, 'text', a.text, 'metadata', a.metadata, 'occurred_at', a.occurred_at)
                    ORDER BY a.id), '[]')
                FROM conversation_activities a
                WHERE a.client_id = c.client_id AND a.chunk_id = c.id),
            'attachments', '[]'::json) ORDER BY c.position), '[]')
        FROM (
            SELECT * FROM conversation_chunks
            WHERE client_id = s.client_id AND conversation_id = s.id AND position <= s.last_position
              AND position > s.last_position - $2
        ) c)
)::text, (
    SELECT json_agg(json_build_object(
        'chunk_id', f.chunk_id, 'id', f.id, 'kind', f.kind, 'state', f.state, 'content_type', f.content_type,
        'name', f.name, 'size', f.size, 'sha256', f.sha256, 'thumbnail', f.thumbnail, 'code', f.code)
        ORDER BY f.chunk_id, f.number)::text
    FROM conversation_chunks c JOIN attachments f ON f.client_id = c.client_id AND f.chunk_id = c.id
    WHERE c.client_id = s.client_id AND c.conversation_id = s.id AND c.position <= s.last_position
      AND c.position > s.last_position - $2), s.client_id
FROM caller
JOIN conversations s ON s.client_id = caller.client_id
JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
WHERE s.id = $1 AND """ + key_sql.is_visible("s", "caller.sees_private")

_CALLER = f"""
    SELECT k.id AS key_id, k.client_id, {key_sql.SEES_PRIVATE} AS sees_private
    FROM api_keys k JOIN clients c ON c.id = k.client_id AND c.is_active
    WHERE k.key_hash = $3 AND {key_sql.may(Scope.CONVERSATIONS_READ)}"""
_BY_CLIENT = "WITH caller AS (SELECT NULL::bigint AS key_id, $3::uuid AS client_id, $4::boolean AS sees_private)"

BY_KEY = f"WITH caller AS ({_CALLER}\n){_DETAIL}"
# A cluster finds the client's server where every sub-select names the client as a value.
BY_CLIENT = _BY_CLIENT + re.sub(r"client_id = [a-z]+\.client_id", "client_id = $3", _DETAIL)
CALLER = _CALLER.replace("$3", "$1")


@dataclass(frozen=True, slots=True)
class Detail:
    """A conversation with its steps and newest chunks, as JSON text.

    key_id      the API key it was read with, if any
    files       the attachments of these chunks, as JSON text, which are not in `json` yet; None if there are none
    """

    key_id: int | None
    json: str
    files: str | None
    client_id: UUID


async def conversation_by_key(
    statements: Statements, key_hash: bytes, conversation_id: UUID, chunks: int
) -> Detail | None:
    """Return the conversation of the key's client with its last `chunks` chunks.

    None if the key is unknown, revoked, expired or without the scope for it, its client inactive, or the conversation
    not the client's, or private and the key without the scope for that.
    """
    if not is_known_cluster():
        found = await statements.read(BY_KEY, conversation_id, chunks, key_hash)
        return Detail(*found) if found else None
    caller = await statements.read(CALLER, key_hash)
    if caller is None:
        return None
    key_id, client_id, private = caller
    found = await statements.read(BY_CLIENT, conversation_id, chunks, client_id, private)
    return Detail(key_id, *found[1:]) if found else None


def conversation_of(client_id: UUID, conversation_id: UUID, chunks: int, *, private: bool = True) -> Detail | None:
    """Return the client's conversation with its last `chunks` chunks, or None. private: also if it is a private one."""
    found = row(BY_CLIENT, conversation_id, chunks, client_id, private)
    return Detail(*found) if found else None
