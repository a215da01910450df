"""Search conversations by their texts: those in global memory, and the chunks of those that are not in it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db.models.functions import Left
from django.utils.translation import gettext

from conversations.models import Chunk, Conversation, corrected_text
from conversations.services.core.cluster import is_cluster, of_one
from conversations.services.core.sql import column, release_connection, rows
from memory import services as memory
from memory.snippets import Snippet, best_snippet, snippet_sources
from memory.words import WordQuery, fold, parse_query, words

ENDED_LOOKED_AT = 5_000  # newest conversations of all clients: among these are ended ones that are not remembered
FEWEST_ENDED = 200  # of each client
LAST = UUID(int=2**128 - 1)
CHUNKS_SEARCHED = 200  # of each conversation, the newest
CHARACTERS = 20_000  # of each chunk: somebody may have sent a book, over and over
AT_ONCE = 2_000  # open conversations that one statement reads
SECONDS = 1.0  # after which no more open conversations are searched
MOST_CLIENTS = 50  # searched at once
MOST_BY_MEANING = 3  # clients searched by meaning: each is a call over the network
FOUND = 200
_ACCENTED = range(0x00C0, 0x0530)  # Latin, Greek, Cyrillic: where letters have capitals and accents


@dataclass(frozen=True, slots=True)
class SearchScope:
    """The scope of a search: a channel ('': all), and conversations that began in [began_from, began_before)."""

    channel: str = ""
    began_from: datetime | None = None
    began_before: datetime | None = None


@dataclass(slots=True)
class FoundConversations:
    """The ids of the conversations that were found, and sentences that say what was not searched."""

    sessions: list[UUID] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def search(client_ids: Sequence[UUID], query: str, scope: SearchScope = SearchScope()) -> FoundConversations:
    """Find the clients' conversations that match the query: open, ended and archived.

    Remembered ones are searched in `memory`, by words, and for up to MOST_BY_MEANING clients by meaning as well if
    possible. The others (open, a guest's or not remembered yet) are read themselves, the newest first, for about
    SECONDS. There a word is also found inside longer words.
    """
    result, searched, question = FoundConversations(), list(client_ids[:MOST_CLIENTS]), parse_query(query)
    if not question.wanted or not searched:
        return result
    if len(client_ids) > len(searched):
        result.left_out.append(
            gettext("Only %(searched)s of %(all)s clients were searched. Choose one (Filters).")
            % {"searched": MOST_CLIENTS, "all": len(client_ids)}
        )
    _search_chunks(searched, question, scope, result)
    among = memory.Filters(channel=scope.channel, ended_from=scope.began_from)
    for client_id in searched:
        found = memory.search_by_words(client_id, query, FOUND, filters=among)
        result.sessions += found
        if len(found) == FOUND:
            result.left_out.append(
                gettext("More than %(n)s ended conversations match. The best %(n)s are here: add a word.")
                % {"n": FOUND}
            )
    if len(searched) <= MOST_BY_MEANING:
        for client_id in filter(memory.can_search_by_meaning, searched):
            release_connection()  # no connection waits for the network
            found, problem = memory.search_by_meaning(client_id, query, FOUND, filters=among)
            result.sessions += found
            if problem:
                result.left_out.append(
                    gettext("The search by meaning failed (%(problem)s). These are the results by words.")
                    % {"problem": problem}
                )
    result.sessions = list(dict.fromkeys(result.sessions))
    result.left_out = list(dict.fromkeys(result.left_out))
    return result


# --- conversations that memory does not hold --------------------------------------------------------------------------
# Whether conversation s says all of $3 and nothing of $4, in its newest $5 chunks.
_SAYS = f"""
    CROSS JOIN LATERAL (
        SELECT concat_ws(chr(1), (
            SELECT string_agg(left(c.content, {CHARACTERS}), chr(1)) FROM conversation_chunks c
            WHERE c.client_id = s.client_id AND c.conversation_id = s.id AND c.position > s.last_position - $5
              AND c.role IN ('user', 'voice', 'ai')
        ), (
            SELECT string_agg(left(a.text, {CHARACTERS}), chr(1)) FROM conversation_activities a
            WHERE a.client_id = s.client_id AND a.conversation_id = s.id)) AS said) t
    WHERE t.said ~ ALL ($3::text[]) AND NOT t.said ~ ANY ($4::text[])"""

# $1 clients, $2 channel; $6 and $7 began from and before; at most $8. The third column says whether the row matches; a
# row that does not is the last one that was read. Of the open ones, those after the conversation $9, which began at $7.
_OPEN = f"""
    WITH s AS MATERIALIZED (
        SELECT client_id, id, last_position, started_at FROM conversations
        WHERE client_id = ANY ($1::uuid[]) AND status IN ('active', 'stale') AND ($2::text = '' OR channel = $2)
          AND started_at >= COALESCE($6::timestamptz, '-infinity')
          AND (started_at, id) < (COALESCE($7::timestamptz, 'infinity'), $9::uuid)
        ORDER BY started_at DESC, id DESC LIMIT $8)
    (SELECT s.id, s.started_at, true FROM s {_SAYS} ORDER BY s.started_at DESC, s.id DESC LIMIT {FOUND})
    UNION ALL
    (SELECT id, started_at, false FROM s ORDER BY started_at, id LIMIT 1)"""

# Of each client's newest conversations, those that ended and that memory does not hold.
_ENDED = f"""
    WITH newest AS MATERIALIZED (
        SELECT s.* FROM unnest($1::uuid[]) AS of_client CROSS JOIN LATERAL (
            SELECT client_id, id, channel, last_position, started_at, status, remembered_at,
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


def _search_chunks(
    client_ids: Sequence[UUID], question: WordQuery, scope: SearchScope, result: FoundConversations
) -> None:
    if is_cluster() and len(client_ids) > 1:
        for client_id in client_ids:
            _search_chunks([client_id], question, scope, result)
        return
    asked = [[_pattern(term) for term in terms] for terms in (question.wanted, question.unwanted)]
    values = (list(client_ids), scope.channel, *asked, CHUNKS_SEARCHED, scope.began_from)
    _read_open(values, scope.began_before, result)
    looked_at = max(ENDED_LOOKED_AT // len(client_ids), FEWEST_ENDED)
    ended = of_one(_ENDED) if is_cluster() else _ENDED
    if end := _add_matches(rows(ended, *values, scope.began_before, looked_at), result):
        result.left_out.append(
            _only_newest(gettext("the guests' conversations and of those that are not remembered"), end[1])
        )


def _read_open(values: Sequence[Any], before: datetime | None, result: FoundConversations) -> None:
    until = time.monotonic() + SECONDS
    end: tuple[UUID, datetime] | None = (UUID(int=0), before) if before else None
    statement = of_one(_OPEN) if is_cluster() else _OPEN
    while end := _add_matches(rows(statement, *values, end and end[1], AT_ONCE, end[0] if end else LAST), result):
        if len(result.sessions) >= FOUND:
            result.left_out.append(
                gettext("Only the newest %(n)s open conversations that match are here. Add a word.") % {"n": FOUND}
            )
            return
        if time.monotonic() > until:
            result.left_out.append(_only_newest(gettext("the open conversations"), end[1]))
            return


def _add_matches(
    found: Iterable[tuple[UUID, datetime, bool]], result: FoundConversations
) -> tuple[UUID, datetime] | None:
    """Add the rows that match to the result, and return the last row that was read if there are more."""
    end = None
    for conversation_id, began, matches in found:
        if matches:
            result.sessions.append(conversation_id)
        else:
            end = conversation_id, began
    return end


def _only_newest(which: str, since: datetime) -> str:
    back = f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return gettext(
        "Of %(which)s only the newest were searched, back to %(back)s. Choose dates or a channel to see others."
    ) % {"which": which, "back": back}


# --- patterns ---------------------------------------------------------------------------------------------------------
_GAP = "[^[:alnum:]\x01]"  # within a chunk: \x01 separates two


def _pattern(term: Sequence[str]) -> str:
    """Return the regular expression for PostgreSQL's ~ that finds the term's words in a row, in any case and accents.

    To lower a text first takes several times as long as a pattern with all ways to write a word, and depends on the
    locale.
    """
    return "".join(_word_and_gap(word) for word in term[:-1]) + _letters_pattern(term[-1])


def _word_and_gap(word: str) -> str:
    unspaced = len(word) == 1 and not word.isascii()  # Chinese is written without spaces: each character is a word
    return _letters_pattern(word) + _GAP + ("*" if unspaced else "+")


def _letters_pattern(word: str) -> str:
    # A word has only letters and digits, so nothing needs to be escaped.
    ways = _letter_variants()
    return "".join(f"[{letter}{ways[letter]}]" if letter in ways else letter for letter in word)


@cache
def _letter_variants() -> dict[str, str]:
    """Return for each plain letter the letters that fold to it."""
    ways: dict[str, str] = {}
    for letter in map(chr, (*range(ord("A"), ord("Z") + 1), *_ACCENTED)):
        plain = fold(letter)
        if len(plain) == 1 and plain != letter:
            ways[plain] = ways.get(plain, "") + letter
    return ways


# --- what is shown ----------------------------------------------------------------------------------------------------
def snippets_of(sessions: Iterable[Conversation], query: str) -> dict[UUID, Snippet]:
    """Return for each conversation the snippet that fits the query best, of a message or the summary.

    Conversations without a match are missing.
    """
    question = parse_query(query)
    if not question.wanted:
        return {}
    clients = {session.pk: session.client_id for session in sessions}
    remembered = memory.snippets_for(list({*clients.values()}), list(clients), query)
    found = {key: each for key, each in remembered.items() if each.highlights}
    return {**found, **_snippets_of_chunks({k: of for k, of in clients.items() if k not in found}, question)}


_MATCHING_CHUNKS = """
    SELECT c.id FROM unnest($1::uuid[], $4::uuid[]) AS s (id, client_id)
    CROSS JOIN LATERAL (
        SELECT k.id FROM conversation_chunks k
        WHERE k.client_id = s.client_id AND k.conversation_id = s.id AND k.role IN ('user', 'voice', 'ai')
          AND k.content ~ ANY ($2::text[])
        ORDER BY k.position DESC LIMIT $3) c"""
_CHUNKS_LOOKED_AT = 20  # of each conversation, the newest chunks that hold any of the words


def _snippets_of_chunks(clients: Mapping[UUID, UUID], question: WordQuery) -> dict[UUID, Snippet]:
    """Return for each conversation, with its client, the newest snippet of those with the most words."""
    wanted = {word for term in question.wanted for word in term}
    if is_cluster() and len(set(clients.values())) > 1:
        of_each = [{k: of for k, of in clients.items() if of == each} for each in dict.fromkeys(clients.values())]
        return {k: found for each in of_each for k, found in _snippets_of_chunks(each, question).items()}
    entries = (
        column(
            of_one(_MATCHING_CHUNKS, "$4::uuid[]") if is_cluster() else _MATCHING_CHUNKS,
            *(list(clients), [_letters_pattern(word) for word in wanted], _CHUNKS_LOOKED_AT, list(clients.values())),
        )
        if clients
        else ()
    )
    theirs = list(dict.fromkeys(clients.values()))
    said = (
        Chunk.objects.filter(client__in=theirs, pk__in=list(entries))
        .annotate(reads=Left(corrected_text(theirs[0] if len(theirs) == 1 else None), CHARACTERS))
        .order_by("-position")
    )
    texts: dict[UUID, list[tuple[int | None, str]]] = {}
    for conversation_id, position, text in said.values_list("conversation", "position", "reads"):
        texts.setdefault(conversation_id, []).append((position, text))
    shown = {}
    for conversation_id, texts_of_one in texts.items():
        among = {word for _, text in texts_of_one for word in words(text)}
        named = {word: part for word in among for part in wanted if part in word}
        shown[conversation_id] = best_snippet(snippet_sources(texts_of_one), named)
    return shown
