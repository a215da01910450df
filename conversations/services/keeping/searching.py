"""Finding sessions by what was said in them: ended ones in global memory, open ones in their newest chunks."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from conversations.services.database import column
from memory import services as memory
from memory.words import parse

OPEN_SEARCHED = 2_000  # of the open sessions, the newest
CHUNKS_SEARCHED = 200  # of each of them, the newest
MOST_CLIENTS = 50  # searched at once
FOUND = 200

# An entry that holds every word, whatever else. Bounded by the sessions that are open, however many have ended.
_OPEN_THAT_SAY = """
SELECT s.id FROM (
    SELECT id, last_position, started_at FROM conversations
    WHERE client_id = ANY ($1::uuid[]) AND status IN ('active', 'stale')
    ORDER BY started_at DESC, id DESC LIMIT $3) s
WHERE EXISTS (
    SELECT FROM conversation_chunks c
    WHERE c.conversation_id = s.id AND c.position > s.last_position - $4 AND c.role IN ('user', 'voice', 'ai')
      AND c.content ILIKE ALL ($2::text[]))
ORDER BY s.started_at DESC, s.id DESC LIMIT $5"""


def sessions_that_say(client_ids: Sequence[UUID], query: str) -> list[UUID]:
    """The clients' sessions in which somebody said what `query` asks for, at most a few hundred of each kind.

    Of more than MOST_CLIENTS clients, the first are searched. In sessions that are open a word is found inside longer
    words as well; ended ones are searched as `memory` does.
    """
    searched = list(client_ids[:MOST_CLIENTS])
    if not parse(query).wanted or not searched:
        return []
    patterns = [f"%{_literally(word)}%" for word in query.replace('"', " ").split() if not word.startswith("-")]
    still_open = column(_OPEN_THAT_SAY, searched, patterns, OPEN_SEARCHED, CHUNKS_SEARCHED, FOUND)
    ended = [found for client_id in searched for found in memory.sessions_that_say(client_id, query, FOUND)]
    return [*still_open, *ended]


def _literally(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
