"""Global memory: what ended sessions leave, read, found and forgotten. Plain verbs, each of which may be repeated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from memory import snippets, words
from memory.models import Memory, MemoryVector
from memory.records import (
    EXTRACTIVE,
    NO_FILTERS,
    Filters,
    Found,
    Hit,
    PastSession,
    Remembered,
    SearchResult,
    SessionRecord,
    TranscriptEntry,
)
from memory.stores import leftovers, pinecone
from memory.stores.contract import StoreError
from memory.stores.database import DatabaseStore, lexemes_asked_for
from memory.stores.leftovers import Place, places_of
from memory.stores.pinecone import PineconeStore
from memory.summaries import summarise

__all__ = [
    "Filters",
    "Found",
    "PastSession",
    "Place",
    "Remembered",
    "SearchResult",
    "SessionRecord",
    "StoreError",
    "TranscriptEntry",
    "forget",
    "forget_lost",
    "forget_texts",
    "forget_traces",
    "how_many",
    "how_many_of",
    "knows_meanings",
    "latest_summaries",
    "move",
    "places_of",
    "remember",
    "search",
    "sessions_of",
    "sessions_that_mean",
    "sessions_that_say",
    "shown_of",
    "snippets_of",
    "transcript",
]

log = logging.getLogger(__name__)

MOST_FOUND = 100
# A session's worth in a list is 1 / (this + its place); worths in several lists add up (reciprocal rank fusion,
# Cormack, Clarke and Büttcher 2009, who found 60 to serve well): the lists' own scores cannot be compared.
RANK_OFFSET = 60


# --- remembering and forgetting --------------------------------------------------------------------------------------
def remember(record: SessionRecord) -> Remembered:
    """The session is in memory: its transcript and final summary in PostgreSQL, and its vectors at Pinecone where that
    is configured.

    It may be cut off anywhere and done again with the same record: what is done is not done again, and the end is the
    same. A summary is made once; one that `record` brings replaces it. A record that says something else than before
    (a correction, a redaction) replaces what was remembered. Raises LLMError (always retryable) or StoreError; code
    `forgotten` if the session is forgotten meanwhile. Must not be called in a transaction: it waits for the network.
    """
    record = record.tidied()
    database = DatabaseStore()
    database.remember(record)  # first of all the transcript, which nothing else needs to be up for
    record = _with_summary(record)
    vectors = 0
    if pinecone.is_configured():
        PineconeStore().remember(record)
        vectors = MemoryVector.objects.of_conversation(record.conversation_id).count()
    memory = Memory.objects.filter(pk=record.conversation_id)
    memory.filter(remembered_at=None).exclude(summary="").update(remembered_at=timezone.now())
    done = memory.values_list("summary", "summary_kind", "remembered_at").first()
    if done is None or done[2] is None:
        raise _forgotten()
    return Remembered(record.conversation_id, done[0], done[1], done[2], vectors)


def forget(conversation_id: UUID) -> None:
    """Nothing of the session is left in memory, nor at Pinecone. Raises StoreError; then its text is gone already, and
    what is left is forgotten by doing it again."""
    DatabaseStore().forget(conversation_id)  # first: from now on nobody sends more of it to Pinecone
    PineconeStore().forget(conversation_id)


def forget_texts(conversation_ids: Sequence[UUID]) -> int:
    """The sessions' texts are gone from memory; their vectors are lost then, and `forget_lost` clears them. It asks no
    network, and may be part of a transaction. Returns how many sessions memory knew."""
    return Memory.objects.filter(pk__in=conversation_ids).delete()[0] if conversation_ids else 0


def forget_lost(seconds: float = 60) -> int:
    """The vectors of sessions whose text is gone are gone too, for so long. Returns how many there were. Raises
    StoreError; what is left then is still in the ledger."""
    return PineconeStore().forget_lost(seconds)


def forget_traces(client_id: UUID, contact_id: UUID, known: Sequence[Place]) -> int:
    """Pinecone, asked for the vectors of `known` and for any other of the contact's, finds none. Returns how many
    ids it was asked for. Raises StoreError; `still_there` where it found some, which are deleted once more: it may
    show for a while what is deleted already."""
    found = leftovers.found_of(client_id, contact_id, known)
    if found:
        leftovers.delete(found)
        raise StoreError("Pinecone still finds vectors.", code="still_there", retryable=True)
    return len(known)


def sessions_of(client_id: UUID, contact_id: UUID) -> list[UUID]:
    """All sessions of the contact that memory knows."""
    known = Memory.objects.of(client_id).filter(contact_id=contact_id)
    return list(known.values_list("conversation_id", flat=True))


def how_many(conversation_ids: Sequence[UUID]) -> tuple[int, int]:
    """How many of the sessions memory knows, and how many vectors of them it has at Pinecone or under way."""
    known = Memory.objects.filter(pk__in=conversation_ids).count()
    return known, MemoryVector.objects.filter(conversation_id__in=conversation_ids).count()


def how_many_of(client_id: UUID, contact_id: UUID) -> int:
    """How many sessions of the client's contact memory knows."""
    return Memory.objects.of(client_id).filter(contact_id=contact_id).count()


def move(client_id: UUID, from_contact: UUID, to_contact: UUID) -> list[UUID]:
    """What is remembered of the one contact is remembered of the other. Returns the sessions of which Pinecone has
    vectors, which name the first until the session is remembered anew."""
    moved = Memory.objects.of(client_id).filter(contact_id=from_contact)
    sessions = list(moved.values_list("pk", flat=True))
    moved.update(contact_id=to_contact)
    vectors = MemoryVector.objects.filter(conversation_id__in=sessions)
    return list(vectors.values_list("conversation_id", flat=True).distinct())


def _with_summary(record: SessionRecord) -> SessionRecord:
    """The record with the summary that is in memory, which is made now if there is none."""
    kept = Memory.objects.plain().filter(pk=record.conversation_id).first()
    if kept is None:
        raise _forgotten()
    if not kept.summary:
        made = summarise(
            record.entries, goal=record.goal, previous=record.summary_so_far, open_points=record.open_points
        )
        # Somebody else may have made one meanwhile, or the session may be forgotten. Durable: refuses to run inside
        # a transaction, which would have been held while the model was writing.
        with transaction.atomic(durable=True):
            kept = Memory.objects.plain().select_for_update().filter(pk=record.conversation_id).first()
            if kept is None:
                raise _forgotten()
            if not kept.summary:
                kept.summary, kept.summary_kind = record.rules.clean(made.text), made.kind
                DatabaseStore().remember(replace(record, summary=kept.summary, summary_kind=made.kind))
    return replace(record, summary=kept.summary, summary_kind=kept.summary_kind)


def _forgotten() -> StoreError:
    return StoreError("The session was forgotten meanwhile.", code="forgotten", retryable=False)


# --- reading ---------------------------------------------------------------------------------------------------------
def transcript(conversation_id: UUID) -> tuple[TranscriptEntry, ...] | None:
    """What is archived of the session, in its order; None if memory does not know it."""
    memory = Memory.objects.plain().filter(pk=conversation_id).first()
    return memory.entries() if memory else None


def latest_summaries(client_id: UUID, contact_id: UUID, limit: int = 3) -> list[PastSession]:
    """The contact's last ended sessions that have a summary, the newest first."""
    known = Memory.objects.of(client_id).filter(contact_id=contact_id).exclude(summary="")
    newest = known.defer("document", "transcript").order_by("-ended_at", "conversation_id")[:limit]
    return [memory.as_past_session() for memory in newest]


# --- searching -------------------------------------------------------------------------------------------------------
def search(client_id: UUID, query: str, limit: int = 20, *, filters: Filters = NO_FILTERS) -> SearchResult:
    """The client's ended sessions that answer `query`, best first, at most `limit` (1 to 100).

    query: words, "several in a row", -not_this; whatever a person types does no harm. By text always; by meaning too
    where Pinecone is configured, and if that fails `problem` says why, and what was found by text is the answer.
    """
    limit = min(max(limit, 1), MOST_FOUND)
    question = words.parse(query)
    by_text = DatabaseStore().search(client_id, query, limit, filters)
    by_meaning: list[Hit] = []
    problem = ""
    if question.wanted and pinecone.is_configured():
        try:
            by_meaning = PineconeStore().search(client_id, query, limit, filters)
        except StoreError as error:
            log.warning("Nothing is searched by meaning (%s).", error.code)
            problem = error.code
    return SearchResult(_shown(client_id, question, by_text, by_meaning, limit), problem)


def sessions_that_say(client_id: UUID, query: str, limit: int, *, filters: Filters = NO_FILTERS) -> list[UUID]:
    """The client's ended sessions that hold the words of `query`, best first. By text alone, without the network."""
    return [hit.conversation_id for hit in DatabaseStore().search(client_id, query, limit, filters)]


def knows_meanings() -> bool:
    """Whether sessions are found by meaning too."""
    return pinecone.is_configured()


def sessions_that_mean(
    client_id: UUID, query: str, limit: int, *, filters: Filters = NO_FILTERS
) -> tuple[list[UUID], str]:
    """The client's ended sessions that are near to `query` in meaning, best first, and the code of why nobody can say.
    It waits for the network."""
    try:
        found = PineconeStore().search(client_id, query, min(limit, MOST_FOUND), filters)
    except StoreError as error:
        log.warning("Nothing is searched by meaning (%s).", error.code)
        return [], error.code
    return [hit.conversation_id for hit in found], ""


def shown_of(conversation_ids: Sequence[UUID], query: str) -> dict[UUID, snippets.Snippet]:
    """Of those of the sessions that memory knows, the entry that holds most of what `query` asks for, or the summary,
    with the words that do; without highlights where neither holds any."""
    rows = {row.conversation_id: row for row in Memory.objects.plain().filter(pk__in=conversation_ids)}
    return snippets_of(words.parse(query), rows, {})


def _shown(
    client_id: UUID, question: words.Query, by_text: Sequence[Hit], by_meaning: Sequence[Hit], limit: int
) -> tuple[Found, ...]:
    """The best of both lists, with what is to be shown of them."""
    worth: dict[UUID, float] = {}
    for hits in (by_text, by_meaning):
        for place, hit in enumerate(hits, start=1):
            worth[hit.conversation_id] = worth.get(hit.conversation_id, 0.0) + 1 / (RANK_OFFSET + place)
    best = sorted(worth, key=lambda conversation_id: -worth[conversation_id])[:limit]
    rows = {row.conversation_id: row for row in Memory.objects.of(client_id).plain().filter(pk__in=best)}
    texts = {hit.conversation_id for hit in by_text}
    passages = {hit.conversation_id: hit for hit in by_meaning}
    shown = snippets_of(question, rows, {key: hit for key, hit in passages.items() if key not in texts})
    return tuple(
        Found(
            conversation_id=row.conversation_id,
            contact_id=row.contact_id,
            channel=row.channel,
            started_at=row.started_at,
            ended_at=row.ended_at,
            summary=row.summary,
            score=worth[row.conversation_id],
            position=shown[row.conversation_id].position,
            snippet=shown[row.conversation_id].text,
            highlights=shown[row.conversation_id].highlights,
            by="meaning" if row.pk not in texts else "both" if row.pk in passages else "text",
        )
        for conversation_id in best
        if (row := rows.get(conversation_id)) is not None
    )


def snippets_of(
    question: words.Query, rows: dict[UUID, Memory], passages: dict[UUID, Hit]
) -> dict[UUID, snippets.Snippet]:
    """What is shown of each session: of the passage that was found by meaning alone, else of the whole session."""
    texts = {key: _texts(row, passages.get(key)) for key, row in rows.items()}
    shown: dict[UUID, snippets.Snippet] = {}
    # A word and its other forms nearly always begin alike, and few words of a text begin like those asked for. Where
    # nothing is found so, all of its words are looked at.
    for starts in (question.starts, ("",)):
        left = {key: snippets.pieces(texts[key], starts) for key in texts if key not in shown}
        asked = _asked_for(question, rows, left)
        for key, pieces in left.items():
            forms = asked[rows[key].language]
            if starts == ("",) or any(word in forms for piece in pieces for word in piece.words):
                shown[key] = snippets.best(pieces, forms)
    return shown


def _asked_for(
    question: words.Query, rows: dict[UUID, Memory], pieces: dict[UUID, list[snippets.Piece]]
) -> dict[str, dict[str, str]]:
    """By language, the words of the pieces that count as asked for."""
    among: dict[str, set[str]] = {rows[key].language: set() for key in pieces}
    for key, of_session in pieces.items():
        among[rows[key].language].update(word for piece in of_session for word in piece.words)
    return {language: lexemes_asked_for(language, question, found) for language, found in among.items()}


def _texts(row: Memory, passage: Hit | None) -> list[tuple[int | None, str]]:
    """The summary and what was said, or what the passage consists of."""
    said = [(entry.position, entry.content) for entry in row.entries() if entry.is_said]
    summary: list[tuple[int | None, str]] = [] if said and row.summary_kind == EXTRACTIVE else [(None, row.summary)]
    if passage is None:
        return [*summary, *said]
    there = [text for text in said if passage.first_position <= text[0] <= passage.last_position]
    return [*there] or [*summary, *said]
