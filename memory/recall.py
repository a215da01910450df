"""Finds a person's earlier conversations about the subject of their message.

In two steps: `find_nearest` uses the network and reads no row, `recall` reads rows and uses no network.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from memory import words
from memory.language_models.contract import ModelAccess
from memory.models import Memory
from memory.records import EXTRACTIVE, Filters, StoreHit
from memory.services import snippets_of
from memory.stores import database, pinecone
from memory.stores.contract import StoreError
from memory.stores.pinecone import PineconeStore

log = logging.getLogger(__name__)

MAX_RECALLED = 3  # conversations
MAX_NEAREST = 10  # conversations by meaning: some of them may be too old to count
ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NearestVectors:
    """The vectors that are nearest to a text.

    scores      the similarity of each vector, by its id
    problem     the code of the error if the search failed
    """

    scores: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RecalledConversation:
    """An earlier conversation about the same subject.

    summary     its final summary; '' if that is only an extract
    text        part of the entry that fits best, or of the summary (then `position` is None)
    store       the store that found it: pinecone (by meaning) or database (by words)
    score       from 0 to 1: the cosine similarity, or the share of the text's words that it contains
    """

    conversation_id: UUID
    channel: str
    started_at: datetime
    summary: str
    text: str
    position: int | None
    store: str
    score: float


def find_nearest(
    client_id: UUID, contact_id: UUID, text: str, seconds: float, embedder: ModelAccess | None
) -> NearestVectors | None:
    """Return the contact's vectors that are nearest to `text`, within `seconds`; None if Pinecone is not configured.

    Uses the network only, and no database. Never raises.

    embedder: who makes the text's vector
    """
    if not pinecone.is_configured() or embedder is None:
        return None
    try:
        filters = Filters(contact_id=contact_id)
        return NearestVectors(
            PineconeStore().nearest(client_id, text, MAX_NEAREST, filters, seconds=seconds, embedder=embedder)
        )
    except StoreError as error:
        log.warning("Recall by meaning failed (%s).", error.code)
        return NearestVectors(problem=error.code)
    except Exception as error:
        log.exception("Recall by meaning failed.")
        return NearestVectors(problem=type(error).__name__)


def recall(
    client_id: UUID, contact_id: UUID, text: str, found: NearestVectors | None, since: datetime | None = None
) -> list[RecalledConversation]:
    """Return the contact's conversations about the subject of `text`, best first, at most MAX_RECALLED.

    They are the conversations of the vectors `found`; if `found` is None, those that contain the same words. Only
    conversations that started at `since` or later count.
    """
    if found is None:
        store, hits = "database", database.find_similar(client_id, contact_id, text, MAX_RECALLED, since or ALWAYS)
    else:
        store, hits = "pinecone", PineconeStore().hits(client_id, found.scores)
    theirs = Memory.objects.of(client_id).plain().filter(contact_id=contact_id, started_at__gte=since or ALWAYS)
    rows = {row.conversation_id: row for row in theirs.filter(pk__in=[hit.conversation_id for hit in hits])}
    chosen = [hit for hit in hits if hit.conversation_id in rows][:MAX_RECALLED]
    return _with_snippets(text, store, chosen, rows)


def _with_snippets(
    text: str, store: str, hits: Sequence[StoreHit], rows: dict[UUID, Memory]
) -> list[RecalledConversation]:
    passages = {hit.conversation_id: hit for hit in hits if hit.last_position}
    wanted = {hit.conversation_id: rows[hit.conversation_id] for hit in hits}
    shown = snippets_of(words.parse_query(text), wanted, passages)
    return [
        RecalledConversation(
            conversation_id=hit.conversation_id,
            channel=rows[hit.conversation_id].channel,
            started_at=rows[hit.conversation_id].started_at,
            summary="" if rows[hit.conversation_id].summary_kind == EXTRACTIVE else rows[hit.conversation_id].summary,
            text=shown[hit.conversation_id].text,
            position=shown[hit.conversation_id].position,
            store=store,
            score=round(hit.score, 3),
        )
        for hit in hits
    ]
