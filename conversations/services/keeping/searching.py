"""Finding sessions by what was said in them: ended ones in global memory, open ones in their newest chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from conversations.models import SAID, Chunk, Conversation, corrected_text
from conversations.services.database import column, let_go
from memory import services as memory
from memory.snippets import Snippet, best, pieces
from memory.words import fold, parse, words

OPEN_SEARCHED = 2_000  # of the open sessions, the newest
CHUNKS_SEARCHED = 200  # of each of them, the newest
MOST_CLIENTS = 50  # searched at once
MOST_BY_MEANING = 3  # clients: each is asked for over the network
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
    words as well; ended ones are searched as `memory` does, and of few clients by meaning too where that is possible.
    """
    searched = list(client_ids[:MOST_CLIENTS])
    if not parse(query).wanted or not searched:
        return []
    patterns = [f"%{_literally(word)}%" for word in _plain_words(query)]
    found = list(column(_OPEN_THAT_SAY, searched, patterns, OPEN_SEARCHED, CHUNKS_SEARCHED, FOUND))
    for client_id in searched:
        found += memory.sessions_that_say(client_id, query, FOUND)
    if len(searched) <= MOST_BY_MEANING and memory.knows_meanings():
        for client_id in searched:
            let_go()  # no connection waits for the network
            found += memory.sessions_that_mean(client_id, query, FOUND)
    return list(dict.fromkeys(found))


def shown_of(sessions: Iterable[Conversation], query: str) -> dict[UUID, Snippet]:
    """What each of the sessions says of what `query` asks for: the entry that fits best, or the summary. Those that say
    nothing of it are missing."""
    if not parse(query).wanted:
        return {}
    ids = [session.pk for session in sessions]
    found = {key: each for key, each in memory.shown_of(ids, query).items() if each.highlights}
    return {**found, **_shown_of_open([key for key in ids if key not in found], query)}


def _shown_of_open(ids: Sequence[UUID], query: str) -> dict[UUID, Snippet]:
    """Of the newest entries of each session, the newest that has every word."""
    asked = [fold(word) for word in _plain_words(query)]
    newest = Chunk.objects.filter(conversation__in=ids, role__in=SAID)
    for word in _plain_words(query):
        newest = newest.filter(content__icontains=word)
    newest = newest.annotate(reads=corrected_text()).order_by("conversation", "-position").distinct("conversation")
    shown = {}
    for session, position, text in newest.values_list("conversation", "position", "reads"):
        named = {word: word for word in words(text) if any(part and part in word for part in asked)}
        shown[session] = best(pieces([(position, text)]), named)
    return shown


def _plain_words(query: str) -> list[str]:
    return [word for word in query.replace('"', " ").split() if not word.startswith("-")]


def _literally(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
