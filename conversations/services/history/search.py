"""Finding sessions by what was said in them: in global memory, and in the entries of those that it does not hold."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db.models.functions import Left

from conversations.models import Chunk, Conversation, corrected_text
from conversations.services.core.sql import column, release_connection, rows
from memory import services as memory
from memory.snippets import Snippet, best_snippet, snippet_sources
from memory.words import WordQuery, fold, parse_query, words

ENDED_LOOKED_AT = 5_000  # of the clients' sessions, the newest: among these are ended ones that are not remembered
FEWEST_ENDED = 200  # of each client
LAST = UUID(int=2**128 - 1)
CHUNKS_SEARCHED = 200  # of each session, the newest
CHARACTERS = 20_000  # of each chunk: somebody may have sent a book, over and over
AT_ONCE = 2_000  # open sessions
SECONDS = 1.0  # after which no more of them are searched
MOST_CLIENTS = 50  # searched at once
MOST_BY_MEANING = 3  # clients: each is asked for over the network
FOUND = 200
_ACCENTED = range(0x00C0, 0x0530)  # Latin, Greek, Cyrillic: where letters have capitals and accents


@dataclass(frozen=True, slots=True)
class SearchScope:
    """Where is looked: on a channel ('': on any), in sessions that began at a moment or later, and before another."""

    channel: str = ""
    began_from: datetime | None = None
    began_before: datetime | None = None


@dataclass(slots=True)
class FoundConversations:
    """The sessions that were found, and in sentences where was not looked."""

    sessions: list[UUID] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def sessions_that_say(client_ids: Sequence[UUID], query: str) -> list[UUID]:
    """The clients' sessions in which somebody said what `query` asks for, at most a few hundred of each kind."""
    return search(client_ids, query).sessions


def search(client_ids: Sequence[UUID], query: str, place: SearchScope = SearchScope()) -> FoundConversations:
    """The clients' sessions in which somebody said what `query` asks for, open, ended and archived.

    Ended ones are searched as `memory` does, and of few clients by meaning too where that is possible. Those that
    memory does not hold, which are open, a guest's, or not remembered yet, are read themselves, the newest first and
    for about SECONDS: there a word is found inside longer words as well.
    """
    said, searched, question = FoundConversations(), list(client_ids[:MOST_CLIENTS]), parse_query(query)
    if not question.wanted or not searched:
        return said
    if len(client_ids) > len(searched):
        said.left_out.append(f"Only {MOST_CLIENTS} of {len(client_ids)} clients were searched: choose one (Filters).")
    _read_them(searched, question, place, said)
    among = memory.Filters(channel=place.channel, ended_from=place.began_from)
    for client_id in searched:
        found = memory.search_by_words(client_id, query, FOUND, filters=among)
        said.sessions += found
        if len(found) == FOUND:
            said.left_out.append(f"More than {FOUND} ended sessions say so, and the best {FOUND} are here: add a word.")
    if len(searched) <= MOST_BY_MEANING and memory.can_search_by_meaning():
        for client_id in searched:
            release_connection()  # no connection waits for the network
            found, problem = memory.search_by_meaning(client_id, query, FOUND, filters=among)
            said.sessions += found
            if problem:
                said.left_out.append(f"By meaning nothing was searched just now ({problem}); by words all the same.")
    said.sessions = list(dict.fromkeys(said.sessions))
    said.left_out = list(dict.fromkeys(said.left_out))
    return said


# --- those that memory does not hold ----------------------------------------------------------------------------------
# Whether a session s says all of $3 and nothing of $4, in its newest $5 entries.
_SAYS = f"""
    CROSS JOIN LATERAL (
        SELECT string_agg(left(c.content, {CHARACTERS}), chr(1)) AS said FROM conversation_chunks c
        WHERE c.conversation_id = s.id AND c.position > s.last_position - $5 AND c.role IN ('user', 'voice', 'ai')) t
    WHERE t.said ~ ALL ($3::text[]) AND NOT t.said ~ ANY ($4::text[])"""

# $1 clients, $2 channel; $6 and $7 began from and before; at most $8. Each says whether it is an answer; one that is
# none is the end of what was looked at. Of those that are open, the ones that follow the session $9, which began at $7.
_OPEN = f"""
    WITH s AS MATERIALIZED (
        SELECT id, last_position, started_at FROM conversations
        WHERE client_id = ANY ($1::uuid[]) AND status IN ('active', 'stale') AND ($2::text = '' OR channel = $2)
          AND started_at >= COALESCE($6::timestamptz, '-infinity')
          AND (started_at, id) < (COALESCE($7::timestamptz, 'infinity'), $9::uuid)
        ORDER BY started_at DESC, id DESC LIMIT $8)
    (SELECT s.id, s.started_at, true FROM s {_SAYS} ORDER BY s.started_at DESC, s.id DESC LIMIT {FOUND})
    UNION ALL
    (SELECT id, started_at, false FROM s ORDER BY started_at, id LIMIT 1)"""

# Of each client's newest sessions, those that ended and that memory does not hold.
_ENDED = f"""
    WITH newest AS MATERIALIZED (
        SELECT s.* FROM unnest($1::uuid[]) AS of_client CROSS JOIN LATERAL (
            SELECT id, channel, last_position, started_at, status, remembered_at,
                   row_number() OVER (ORDER BY started_at DESC, id DESC) AS place
            FROM conversations
            WHERE client_id = of_client AND started_at >= COALESCE($6::timestamptz, '-infinity')
              AND started_at < COALESCE($7::timestamptz, 'infinity')
            ORDER BY started_at DESC, id DESC LIMIT $8) s),
    s AS (
        SELECT * FROM newest
        WHERE status IN ('expired', 'closed') AND remembered_at IS NULL AND ($2::text = '' OR channel = $2))
    (SELECT s.id, s.started_at, true FROM s {_SAYS} ORDER BY s.started_at DESC, s.id DESC LIMIT {FOUND})
    UNION ALL
    (SELECT id, started_at, false FROM newest WHERE place = $8 ORDER BY started_at DESC LIMIT 1)"""


def _read_them(client_ids: Sequence[UUID], question: WordQuery, place: SearchScope, said: FoundConversations) -> None:
    asked = [[_pattern(term) for term in terms] for terms in (question.wanted, question.unwanted)]
    values = (list(client_ids), place.channel, *asked, CHUNKS_SEARCHED, place.began_from)
    _read_open(values, place.began_before, said)
    looked_at = max(ENDED_LOOKED_AT // len(client_ids), FEWEST_ENDED)
    if end := _take(rows(_ENDED, *values, place.began_before, looked_at), said):
        said.left_out.append(_only("sessions of guests, and of those that are not remembered,", end[1]))


def _read_open(values: Sequence[Any], before: datetime | None, said: FoundConversations) -> None:
    until = time.monotonic() + SECONDS
    end: tuple[UUID, datetime] | None = (UUID(int=0), before) if before else None
    while end := _take(rows(_OPEN, *values, end and end[1], AT_ONCE, end[0] if end else LAST), said):
        if len(said.sessions) >= FOUND:
            said.left_out.append(f"The newest {FOUND} open sessions that say so are here: narrow it down.")
            return
        if time.monotonic() > until:
            said.left_out.append(_only("open sessions", end[1]))
            return


def _take(found: Iterable[tuple[UUID, datetime, bool]], said: FoundConversations) -> tuple[UUID, datetime] | None:
    """The answers are taken. Returns the end of what was looked at, if there is one."""
    end = None
    for session, began, is_answer in found:
        if is_answer:
            said.sessions.append(session)
        else:
            end = session, began
    return end


def _only(which: str, since: datetime) -> str:
    back = f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"Of {which} the newest were searched, back to {back}: narrow it down by date or channel."


# --- patterns ---------------------------------------------------------------------------------------------------------
_GAP = "[^[:alnum:]\x01]"  # within an entry: \x01 stands between two


def _pattern(term: Sequence[str]) -> str:
    """For PostgreSQL's ~: the words of the term in a row, in whatever case and with whatever accents. (To lower a text
    first takes several times as long as to look for all ways to write a word, and does what the locale can.)"""
    return "".join(_followed(word) for word in term[:-1]) + _written(term[-1])


def _followed(word: str) -> str:
    unspaced = len(word) == 1 and not word.isascii()  # as Chinese is written: each character counts as a word
    return _written(word) + _GAP + ("*" if unspaced else "+")


def _written(word: str) -> str:
    """A word is letters and digits alone, none of which means anything to a pattern."""
    ways = _ways_to_write()
    return "".join(f"[{letter}{ways[letter]}]" if letter in ways else letter for letter in word)


@cache
def _ways_to_write() -> dict[str, str]:
    """By letter as it is asked for, those that count as it."""
    ways: dict[str, str] = {}
    for letter in map(chr, (*range(ord("A"), ord("Z") + 1), *_ACCENTED)):
        plain = fold(letter)
        if len(plain) == 1 and plain != letter:
            ways[plain] = ways.get(plain, "") + letter
    return ways


# --- what is shown ----------------------------------------------------------------------------------------------------
def shown_of(sessions: Iterable[Conversation], query: str) -> dict[UUID, Snippet]:
    """What each of the sessions says of what `query` asks for: the entry that fits best, or the summary. Those that say
    nothing of it are missing."""
    question = parse_query(query)
    if not question.wanted:
        return {}
    ids = [session.pk for session in sessions]
    found = {key: each for key, each in memory.snippets_for(ids, query).items() if each.highlights}
    return {**found, **_shown_of_entries([key for key in ids if key not in found], question)}


_ENTRIES = """
    SELECT c.id FROM unnest($1::uuid[]) AS s (id)
    CROSS JOIN LATERAL (
        SELECT k.id FROM conversation_chunks k
        WHERE k.conversation_id = s.id AND k.role IN ('user', 'voice', 'ai') AND k.content ~ ANY ($2::text[])
        ORDER BY k.position DESC LIMIT $3) c"""
_ENTRIES_LOOKED_AT = 20  # of each session, the newest that hold any of the words


def _shown_of_entries(ids: Sequence[UUID], question: WordQuery) -> dict[UUID, Snippet]:
    """Of each session the entry that holds most of what is wanted; of several the newest."""
    wanted = {word for term in question.wanted for word in term}
    entries = column(_ENTRIES, list(ids), [_written(word) for word in wanted], _ENTRIES_LOOKED_AT) if ids else ()
    said = (
        Chunk.objects.filter(pk__in=list(entries))
        .annotate(reads=Left(corrected_text(), CHARACTERS))
        .order_by("-position")
    )
    texts: dict[UUID, list[tuple[int | None, str]]] = {}
    for session, position, text in said.values_list("conversation", "position", "reads"):
        texts.setdefault(session, []).append((position, text))
    shown = {}
    for session, theirs in texts.items():
        among = {word for _, text in theirs for word in words(text)}
        named = {word: part for word in among for part in wanted if part in word}
        shown[session] = best_snippet(snippet_sources(theirs), named)
    return shown
