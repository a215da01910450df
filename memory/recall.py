"""What a person said in earlier sessions about what they write now: in two steps, of which one knows the network and no
row, and the other rows and no network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from memory import words
from memory.models import Memory
from memory.records import EXTRACTIVE, Filters, Hit
from memory.services import snippets_of
from memory.stores import database, pinecone
from memory.stores.contract import StoreError
from memory.stores.pinecone import PineconeStore

log = logging.getLogger(__name__)

MOST = 3  # sessions
ASKED_FOR = 10  # sessions by meaning: some may be too old to count
ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Near:
    """What is near in meaning: vectors by their ids, and how near. `problem` is the code of why nobody knows."""

    scores: dict[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Recalled:
    """An earlier session that is about the same.

    summary     of the session, '' where that is an extract
    text        of the entry that fits best, or of the summary (then `position` is None)
    store       where it was found: pinecone (by meaning) or database (by words)
    score       from 0 to 1: the cosine, or the share of the words that it says too
    """

    conversation_id: UUID
    channel: str
    started_at: datetime
    summary: str
    text: str
    position: int | None
    store: str
    score: float


def near(client_id: UUID, contact_id: UUID, text: str, seconds: float) -> Near | None:
    """What of the contact's is near to `text` in meaning, within `seconds`; None where nothing can be searched so.

    Asks the network alone, and never raises."""
    if not pinecone.is_configured():
        return None
    try:
        filters = Filters(contact_id=contact_id)
        return Near(PineconeStore().nearest(client_id, text, ASKED_FOR, filters, seconds=seconds))
    except StoreError as error:
        log.warning("Nothing is recalled by meaning (%s).", error.code)
        return Near(problem=error.code)
    except Exception as error:
        log.exception("recall failed")
        return Near(problem=type(error).__name__)


def recall(
    client_id: UUID, contact_id: UUID, text: str, found: Near | None, since: datetime | None = None
) -> list[Recalled]:
    """The contact's sessions, begun at `since` or later, that are about what `text` says, best first, at most MOST:
    those of `found`, else (None) those that say the same words."""
    if found is None:
        store, hits = "database", database.about(client_id, contact_id, text, MOST, since or ALWAYS)
    else:
        store, hits = "pinecone", PineconeStore().hits(client_id, found.scores)
    theirs = Memory.objects.of(client_id).plain().filter(contact_id=contact_id, started_at__gte=since or ALWAYS)
    rows = {row.conversation_id: row for row in theirs.filter(pk__in=[hit.conversation_id for hit in hits])}
    chosen = [hit for hit in hits if hit.conversation_id in rows][:MOST]
    return _shown(text, store, chosen, rows)


def _shown(text: str, store: str, hits: Sequence[Hit], rows: dict[UUID, Memory]) -> list[Recalled]:
    passages = {hit.conversation_id: hit for hit in hits if hit.last_position}
    wanted = {hit.conversation_id: rows[hit.conversation_id] for hit in hits}
    shown = snippets_of(words.parse(text), wanted, passages)
    return [
        Recalled(
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
