"""The public functions of global memory: remember, read, search and forget ended conversations.

Every function may be repeated with the same arguments: the result is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from memory import snippets, words
from memory.language_models import choosing
from memory.language_models.choosing import Purpose
from memory.models import Memory, MemoryVector
from memory.records import (
    EXTRACTIVE,
    NO_FILTERS,
    ConversationRecord,
    Filters,
    PastConversation,
    RememberedConversation,
    SearchHit,
    SearchResult,
    StoreHit,
    TranscriptEntry,
)
from memory.stores import pinecone, remaining_vectors
from memory.stores.contract import StoreError
from memory.stores.database import DatabaseStore, matching_lexemes
from memory.stores.pinecone import PineconeStore
from memory.stores.remaining_vectors import VectorLocation, vector_locations
from memory.summaries import summarise

__all__ = [
    "ConversationRecord",
    "Filters",
    "PastConversation",
    "RememberedConversation",
    "SearchHit",
    "SearchResult",
    "StoreError",
    "TranscriptEntry",
    "VectorLocation",
    "can_search_by_meaning",
    "confirm_forgotten",
    "conversations_of_contact",
    "count_of_contact",
    "count_remembered",
    "delete_orphaned_vectors",
    "forget",
    "forget_texts",
    "latest_summaries",
    "move",
    "remember",
    "search",
    "search_by_meaning",
    "search_by_words",
    "snippets_for",
    "snippets_of",
    "transcript",
    "vector_locations",
]

log = logging.getLogger(__name__)

MOST_FOUND = 100
# Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009, who found 60 to serve well): a conversation scores
# 1 / (RANK_OFFSET + its rank) in each list, and the sum counts. The lists' own scores cannot be compared.
RANK_OFFSET = 60


# --- remembering and forgetting --------------------------------------------------------------------------------------
def remember(record: ConversationRecord, *, is_last_try: bool = False) -> RememberedConversation:
    """Remember the conversation: transcript and final summary in PostgreSQL, and vectors at Pinecone if configured.

    It may be interrupted anywhere and repeated with the same record: finished work is skipped, and the result is the
    same. A summary is made once; one that `record` has replaces it. A record with another text than before (a
    correction, a redaction) replaces what was remembered. Must not be called in a transaction: it waits for the
    network. Raises LLMError (always retryable) or StoreError; code `forgotten` if the conversation is forgotten
    meanwhile.

    is_last_try: a summary that the model does not write now, in an answer that is paid for, becomes an extract
    """
    record = record.normalised()
    database = DatabaseStore()
    database.remember(record)  # first the transcript, which depends on no other system
    record = _with_summary(record, is_last_try=is_last_try)
    vectors = 0
    if pinecone.serves(record.client_id):
        PineconeStore().remember(record)
        vectors = MemoryVector.objects.of_conversation(record.client_id, record.conversation_id).count()
    memory = Memory.objects.of(record.client_id).filter(pk=record.conversation_id)
    memory.filter(remembered_at=None).exclude(summary="").update(remembered_at=timezone.now())
    done = memory.values_list("summary", "summary_kind", "remembered_at").first()
    if done is None or done[2] is None:
        raise _forgotten()
    return RememberedConversation(record.conversation_id, done[0], done[1], done[2], vectors)


def forget(client_id: UUID, conversation_id: UUID) -> None:
    """Delete the conversation from memory and from Pinecone.

    Raises StoreError; then its text is deleted already, and a repeated call deletes the rest.
    """
    DatabaseStore().forget(client_id, conversation_id)  # first: from now on nothing more of it is sent to Pinecone
    PineconeStore().forget(client_id, conversation_id)


def forget_texts(client_id: UUID, conversation_ids: Sequence[UUID]) -> int:
    """Delete the conversations' texts from memory and return how many conversations it had.

    Their vectors are orphaned then; `delete_orphaned_vectors` deletes them. Uses no network, and may be part of a
    transaction.
    """
    theirs = Memory.objects.of(client_id).filter(pk__in=conversation_ids)
    return theirs.delete()[0] if conversation_ids else 0


def delete_orphaned_vectors(seconds: float = 60) -> int:
    """Delete the vectors of conversations whose text is deleted, and return how many were deleted.

    Stops after `seconds`. Raises StoreError; the vectors that are left then are still in the ledger.
    """
    return PineconeStore().delete_orphaned(seconds)


def confirm_forgotten(client_id: UUID, contact_id: UUID, known: Sequence[VectorLocation]) -> int:
    """Confirm that Pinecone has no vectors of the contact, and return how many ids were checked.

    known: the locations of the contact's deleted vectors. Pinecone is also queried for any other vector of the contact.
    Raises StoreError; with code `still_there` if vectors were found, which are deleted once more: Pinecone may show
    deleted vectors for a while.
    """
    found = remaining_vectors.find_remaining(client_id, contact_id, known)
    if found:
        remaining_vectors.delete(found)
        raise StoreError("Pinecone still finds vectors.", code="still_there", retryable=True)
    return len(known)


def conversations_of_contact(client_id: UUID, contact_id: UUID) -> list[UUID]:
    """Return the ids of all conversations that memory has of the contact."""
    known = Memory.objects.of(client_id).filter(contact_id=contact_id)
    return list(known.values_list("conversation_id", flat=True))


def count_remembered(client_id: UUID, conversation_ids: Sequence[UUID]) -> tuple[int, int]:
    """Return how many of the conversations memory has, and how many vectors of them are or may be at Pinecone."""
    known = Memory.objects.of(client_id).filter(pk__in=conversation_ids).count()
    return known, MemoryVector.objects.filter(client_id=client_id, conversation_id__in=conversation_ids).count()


def count_of_contact(client_id: UUID, contact_id: UUID) -> int:
    """Return how many conversations memory has of the contact."""
    return Memory.objects.of(client_id).filter(contact_id=contact_id).count()


def move(client_id: UUID, from_contact: UUID, to_contact: UUID) -> list[UUID]:
    """Move all conversations of one contact to another, and return those that have vectors at Pinecone.

    These vectors name the first contact until the conversation is remembered again.
    """
    moved = Memory.objects.of(client_id).filter(contact_id=from_contact)
    conversation_ids = list(moved.values_list("pk", flat=True))
    moved.update(contact_id=to_contact)
    vectors = MemoryVector.objects.filter(client_id=client_id, conversation_id__in=conversation_ids)
    return list(vectors.values_list("conversation_id", flat=True).distinct())


def _with_summary(record: ConversationRecord, *, is_last_try: bool) -> ConversationRecord:
    """Return the record with the summary that memory has; if it has none, one is made now."""
    kept = Memory.objects.of(record.client_id).plain().filter(pk=record.conversation_id).first()
    if kept is None:
        raise _forgotten()
    if not kept.summary:
        made = summarise(
            choosing.access_for(record.client_id, Purpose.SUMMARIES),
            record.entries,
            goal=record.goal,
            previous=record.summary_so_far,
            open_points=record.open_points,
            is_last_try=is_last_try,
            client_id=record.client_id,
        )
        # Another process may have made one meanwhile, or forgotten the conversation. `durable` refuses to run inside a
        # transaction, which would have been held while the model was writing.
        with transaction.atomic(durable=True):
            locked = Memory.objects.of(record.client_id).plain().select_for_update()
            kept = locked.filter(pk=record.conversation_id).first()
            if kept is None:
                raise _forgotten()
            if not kept.summary:
                kept.summary, kept.summary_kind = record.rules.clean(made.text), made.kind
                DatabaseStore().remember(replace(record, summary=kept.summary, summary_kind=made.kind))
    return replace(record, summary=kept.summary, summary_kind=kept.summary_kind)


def _forgotten() -> StoreError:
    return StoreError("The conversation was forgotten meanwhile.", code="forgotten", retryable=False)


# --- reading ---------------------------------------------------------------------------------------------------------
def transcript(client_id: UUID, conversation_id: UUID) -> tuple[TranscriptEntry, ...] | None:
    """Return the archived transcript in its order; None if memory does not have the conversation."""
    memory = Memory.objects.of(client_id).plain().filter(pk=conversation_id).first()
    return memory.entries() if memory else None


def latest_summaries(client_id: UUID, contact_id: UUID, limit: int = 3) -> list[PastConversation]:
    """Return the contact's last ended conversations that have a summary, newest first."""
    known = Memory.objects.of(client_id).filter(contact_id=contact_id).exclude(summary="")
    newest = known.defer("document", "transcript").order_by("-ended_at", "conversation_id")[:limit]
    return [memory.as_past_conversation() for memory in newest]


# --- searching -------------------------------------------------------------------------------------------------------
def search(client_id: UUID, query: str, limit: int = 20, *, filters: Filters = NO_FILTERS) -> SearchResult:
    """Return the client's ended conversations that match `query`, best first, at most `limit` (1 to 100).

    query: words, "a phrase", -excluded; any text is a valid query. The search is by words, and by meaning too if
    Pinecone is configured; if the search by meaning fails, the result has what was found by words, and `problem`.
    """
    limit = min(max(limit, 1), MOST_FOUND)
    parsed = words.parse_query(query)
    by_text = DatabaseStore().search(client_id, query, limit, filters)
    by_meaning: list[StoreHit] = []
    problem = ""
    if parsed.wanted and pinecone.serves(client_id):
        try:
            by_meaning = PineconeStore().search(client_id, query, limit, filters)
        except StoreError as error:
            log.warning("The search by meaning failed (%s).", error.code)
            problem = error.code
    return SearchResult(_merged(client_id, parsed, by_text, by_meaning, limit), problem)


def search_by_words(client_id: UUID, query: str, limit: int, *, filters: Filters = NO_FILTERS) -> list[UUID]:
    """Return the client's ended conversations that contain the words of `query`, best first. Uses no network."""
    return [hit.conversation_id for hit in DatabaseStore().search(client_id, query, limit, filters)]


def can_search_by_meaning(client_id: UUID) -> bool:
    """Return whether the client's conversations can be found by meaning: Pinecone serves the client."""
    return pinecone.serves(client_id)


def search_by_meaning(
    client_id: UUID, query: str, limit: int, *, filters: Filters = NO_FILTERS
) -> tuple[list[UUID], str]:
    """Return the client's ended conversations nearest to `query` in meaning, best first, and the code of the problem.

    The code is '' if the search succeeded; otherwise the list is empty. Waits for the network.
    """
    try:
        found = PineconeStore().search(client_id, query, min(limit, MOST_FOUND), filters)
    except StoreError as error:
        log.warning("The search by meaning failed (%s).", error.code)
        return [], error.code
    return [hit.conversation_id for hit in found], ""


def snippets_for(
    client_ids: Sequence[UUID], conversation_ids: Sequence[UUID], query: str
) -> dict[UUID, snippets.Snippet]:
    """Return a snippet of each conversation that memory has: of the entry that matches `query` best, or the summary.

    The snippet has no highlights if neither contains a word of the query.
    """
    found = Memory.objects.plain().filter(client_id__in=client_ids, pk__in=conversation_ids)
    rows = {row.conversation_id: row for row in found}
    return snippets_of(words.parse_query(query), rows, {})


def _merged(
    client_id: UUID, query: words.WordQuery, by_text: Sequence[StoreHit], by_meaning: Sequence[StoreHit], limit: int
) -> tuple[SearchHit, ...]:
    """Return the best of both lists, with their snippets."""
    score: dict[UUID, float] = {}
    for hits in (by_text, by_meaning):
        for rank, hit in enumerate(hits, start=1):
            score[hit.conversation_id] = score.get(hit.conversation_id, 0.0) + 1 / (RANK_OFFSET + rank)
    best = sorted(score, key=lambda conversation_id: -score[conversation_id])[:limit]
    rows = {row.conversation_id: row for row in Memory.objects.of(client_id).plain().filter(pk__in=best)}
    texts = {hit.conversation_id for hit in by_text}
    passages = {hit.conversation_id: hit for hit in by_meaning}
    shown = snippets_of(query, rows, {key: hit for key, hit in passages.items() if key not in texts})
    return tuple(
        SearchHit(
            conversation_id=row.conversation_id,
            contact_id=row.contact_id,
            channel=row.channel,
            started_at=row.started_at,
            ended_at=row.ended_at,
            summary=row.summary,
            score=score[row.conversation_id],
            position=shown[row.conversation_id].position,
            snippet=shown[row.conversation_id].text,
            highlights=shown[row.conversation_id].highlights,
            by="meaning" if row.pk not in texts else "both" if row.pk in passages else "text",
        )
        for conversation_id in best
        if (row := rows.get(conversation_id)) is not None
    )


def snippets_of(
    query: words.WordQuery, rows: dict[UUID, Memory], passages: dict[UUID, StoreHit]
) -> dict[UUID, snippets.Snippet]:
    """Return the snippet of each row, by conversation id.

    passages: for conversations that were found by meaning alone, the passage that the snippet is taken from.
    """
    texts = {key: _texts(row, passages.get(key)) for key, row in rows.items()}
    shown: dict[UUID, snippets.Snippet] = {}
    # A word and its other forms nearly always begin alike, and few words of a text begin like those of the query. Only
    # if none of these match, all words of the text are compared.
    for prefixes in (query.prefixes, ("",)):
        left = {key: snippets.snippet_sources(texts[key], prefixes) for key in texts if key not in shown}
        matching = _matching_words(query, rows, left)
        for key, sources in left.items():
            forms = matching[rows[key].language]
            if prefixes == ("",) or any(word in forms for source in sources for word in source.words):
                shown[key] = snippets.best_snippet(sources, forms)
    return shown


def _matching_words(
    query: words.WordQuery, rows: dict[UUID, Memory], sources: dict[UUID, list[snippets.SnippetSource]]
) -> dict[str, dict[str, str]]:
    """Return by language the words of the sources that match the query, each with its lexeme."""
    candidates: dict[str, set[str]] = {rows[key].language: set() for key in sources}
    for key, of_conversation in sources.items():
        candidates[rows[key].language].update(word for source in of_conversation for word in source.words)
    return {language: matching_lexemes(language, query, found) for language, found in candidates.items()}


def _texts(row: Memory, passage: StoreHit | None) -> list[tuple[int | None, str]]:
    """Return the texts that a snippet may be taken from, with their positions: only the passage's, if one is given."""
    spoken = [(entry.position, entry.content) for entry in row.entries() if entry.is_spoken]
    summary: list[tuple[int | None, str]] = [] if spoken and row.summary_kind == EXTRACTIVE else [(None, row.summary)]
    if passage is None:
        return [*summary, *spoken]
    of_passage = [text for text in spoken if passage.first_position <= text[0] <= passage.last_position]
    return [*of_passage] or [*summary, *spoken]
