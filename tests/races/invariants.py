"""What is true of the rows at any moment, whoever did what at the same time as whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from conversations.services.core.cluster import is_cluster
from conversations.services.core.sql import rows

TABLES = (
    *("contacts", "conversations", "conversation_chunks", "conversation_events"),
    *("conversation_messages", "conversation_turns", "message_tombstones"),
)
# A rule and the rows that break it.
RULES = {
    "positions are 1, 2, 3 … up to last_position": """
        SELECT s.id, s.last_position, array_agg(c.position ORDER BY c.position)
        FROM conversations s LEFT JOIN conversation_chunks c ON c.conversation_id = s.id
        GROUP BY s.client_id, s.id
        HAVING count(c.id) <> s.last_position OR COALESCE(max(c.position), 0) <> s.last_position""",
    "inbound_sequence counts what the person said": """
        SELECT s.id, s.inbound_sequence, count(c.id)
        FROM conversations s LEFT JOIN conversation_chunks c ON c.conversation_id = s.id AND c.role IN ('user', 'voice')
        GROUP BY s.client_id, s.id HAVING count(c.id) <> s.inbound_sequence""",
    "last_message_at is no earlier than any chunk": """
        SELECT s.id FROM conversations s JOIN conversation_chunks c ON c.conversation_id = s.id
        WHERE c.created_at > s.last_message_at""",
    "last_message_at is no earlier than the beginning, by which the sweep looks for what is silent": """
        SELECT id FROM conversations WHERE last_message_at < started_at""",
    "a contact has one open session on a channel and thread": """
        SELECT contact_id, channel, thread, count(*) FROM conversations WHERE status IN ('active', 'stale')
        GROUP BY contact_id, channel, thread HAVING count(*) > 1""",
    "a message is in one place: a session, or among the tombstones": """
        SELECT c.dedupe_key FROM conversation_chunks c JOIN message_tombstones t USING (dedupe_key)
        UNION ALL
        SELECT dedupe_key FROM conversation_chunks WHERE dedupe_key IS NOT NULL GROUP BY dedupe_key HAVING count(*) > 1
        """,
    "an ended session owes no reply": """
        SELECT id, status FROM conversations WHERE reply_owed AND status NOT IN ('active', 'stale')""",
    "an ended session has nothing to send": """
        SELECT m.id, m.status, s.status FROM conversation_messages m JOIN conversations s ON s.id = m.conversation_id
        WHERE m.status IN ('queued', 'claimed') AND s.status NOT IN ('active', 'stale') AND NOT m.unconditional""",
    "nothing is the assistant's after the takeover": """
        SELECT s.id, c.position, t.position FROM conversations s
        JOIN LATERAL (
            SELECT (data->>'position')::int AS position FROM conversation_events
            WHERE conversation_id = s.id AND kind = 'taken_over' ORDER BY id DESC LIMIT 1) t ON true
        JOIN conversation_turns u ON u.conversation_id = s.id JOIN conversation_chunks c ON c.id = u.chunk_id
        WHERE s.taken_over_at IS NOT NULL AND c.position > t.position""",
    "an open session is a guest's if its contact is one": """
        SELECT s.id, s.is_guest, p.is_guest FROM conversations s JOIN contacts p ON p.id = s.contact_id
        WHERE s.status IN ('active', 'stale') AND s.is_guest <> p.is_guest""",
    "one turn runs in a session": """
        SELECT conversation_id FROM conversation_turns WHERE status = 'running'
        GROUP BY conversation_id HAVING count(*) > 1""",
    "a committed turn is one chunk of the assistant's": """
        SELECT t.id FROM conversation_turns t LEFT JOIN conversation_chunks c ON c.id = t.chunk_id AND c.role = 'ai'
        WHERE t.status = 'committed' AND c.id IS NULL
        UNION ALL
        SELECT max(id::text)::uuid FROM conversation_turns WHERE chunk_id IS NOT NULL
        GROUP BY chunk_id HAVING count(*) > 1""",
    "a turn that is over has an end": """
        SELECT id, status FROM conversation_turns WHERE (status = 'running') <> (ended_at IS NULL)""",
    "what the assistant says is sent in all its parts": """
        SELECT c.id, count(m.id) FROM conversation_chunks c
        JOIN conversations s ON s.id = c.conversation_id AND s.channel <> 'web'
        LEFT JOIN conversation_messages m ON m.chunk_id = c.id
        WHERE c.role = 'ai' GROUP BY c.id HAVING count(m.id) = 0 OR count(m.id) <> max(m.parts)""",
    "only what is being worked on has a lease": """
        SELECT id, status FROM conversation_messages
        WHERE (lease_token IS NOT NULL OR lease_until IS NOT NULL) AND status NOT IN ('claimed', 'sending')""",
    "the ledger leads from opened to where the session is": """
        WITH steps AS (
            SELECT conversation_id, from_status, to_status, id,
                   lag(to_status, 1, '') OVER (PARTITION BY conversation_id ORDER BY id) AS before
            FROM conversation_events WHERE to_status <> '')
        SELECT conversation_id, 'from', from_status, before FROM steps WHERE from_status <> before
        UNION ALL
        SELECT s.id, 'to', s.status, (array_agg(e.to_status ORDER BY e.id DESC))[1]
        FROM conversations s JOIN steps e ON e.conversation_id = s.id
        GROUP BY s.client_id, s.id HAVING (array_agg(e.to_status ORDER BY e.id DESC))[1] <> s.status""",
}


def assert_sound() -> None:
    """Raises AssertionError with every rule that is broken, and by which rows."""
    with together():
        broken = {rule: found for rule, query in RULES.items() if (found := rows(query))}
    assert not broken, "\n".join(f"broken: {rule}\n    {found[:10]}" for rule, found in broken.items())


@contextmanager
def together() -> Iterator[None]:
    """The rows of a cluster are on one server meanwhile, in temporary tables of the same names."""
    if not is_cluster():
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"CREATE TEMPORARY TABLE {table} AS SELECT * FROM public.{table}")
        cursor.execute("ALTER TABLE pg_temp.conversations ADD PRIMARY KEY (client_id, id)")
        yield
        for table in TABLES:
            cursor.execute(f"DROP TABLE pg_temp.{table}")
