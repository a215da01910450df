"""Memory at Pinecone: sessions found by meaning, in passages whose vectors OpenAI's model makes.

Pinecone holds vectors and what a search is narrowed by (ids, channel, time), never text. Every vector id is in our own
ledger (`memory_vectors`) before the vector is sent, and vectors are deleted by those ids: Pinecone has no delete by
prefix, and some index types refuse one by filter. A client's vectors are in a namespace of its own.

`pinecone` is imported inside the functions: it takes a third of a second and 25 MB that the web process never needs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from memory import llm, words
from memory.llm import LLMError
from memory.models import Memory, MemoryVector
from memory.records import NO_FILTERS, Filters, Hit, SessionRecord
from memory.stores.at_pinecone import call
from memory.stores.contract import StoreError
from memory.stores.passages import Passage, passages

if TYPE_CHECKING:
    from pinecone.async_client.async_index import AsyncIndex

BATCH = 40  # passages embedded in one call: some 12,000 tokens of the 300,000 that OpenAI takes
REQUEST_BYTES = 1_800_000  # of vectors in one upsert: Pinecone takes 2 MB and 1,000 vectors
NUMBER_BYTES = 24  # of a vector's number in JSON, at most
DELETED = 1_000  # ids in one delete: Pinecone takes no more
PARTS = 5  # vectors asked for, for each session that is wanted: several passages of one session may fit
MOST = 500  # vectors asked for at all
STILL_UNDER_WAY = timedelta(seconds=60)  # after its deadline a request that we gave up may still arrive, not later


def is_configured() -> bool:
    """Whether there is an index, and a model that makes vectors."""
    return bool(settings.PINECONE_API_KEY and settings.PINECONE_HOST and llm.is_configured())


class PineconeStore:
    """An index at Pinecone, whose address is `PINECONE_HOST`. Only sessions that are in `memories` are written."""

    name = "pinecone"

    def remember(self, record: SessionRecord) -> None:
        """Every passage of the session has its vector, and no other vector of it is left. What is there already is
        neither embedded nor sent again."""
        _must_be_configured()
        wanted = {_vector_id(record, passage): (passage, _digest(record, passage)) for passage in passages(record)}
        noted = {row.vector_id: row for row in MemoryVector.objects.of_conversation(record.conversation_id)}
        _delete([row for row in noted.values() if row.vector_id not in wanted or row.host != settings.PINECONE_HOST])
        missing = [
            passage
            for vector_id, (passage, digest) in wanted.items()
            if not ((row := noted.get(vector_id)) and _is_there(row, digest))
        ]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            vectors = _embedded([passage.text for passage in batch])
            size = max(REQUEST_BYTES // (len(vectors[0]) * NUMBER_BYTES + 500), 1)
            for first in range(0, len(batch), size):
                _upsert(record, batch[first : first + size], vectors[first : first + size])

    def forget(self, conversation_id: UUID) -> None:
        """None of the session's vectors is left. It takes Pinecone's key, and no model."""
        rows = list(MemoryVector.objects.of_conversation(conversation_id))
        if rows and not settings.PINECONE_API_KEY:
            raise StoreError("PINECONE_API_KEY is needed.", code="not_configured", retryable=False)
        _delete(rows)

    def forget_lost(self, seconds: float) -> int:
        """No vector is left of sessions that memory does not know any more, as far as `seconds` allow. Those that may
        still be being written are left for later. Returns how many vectors are gone."""
        gone, until = 0, time.monotonic() + seconds
        while lost := list(_lost()[:DELETED]):
            if not settings.PINECONE_API_KEY:
                raise StoreError("PINECONE_API_KEY is needed.", code="not_configured", retryable=False)
            _delete(lost)
            gone += len(lost)
            if time.monotonic() > until:
                break
        return gone

    def empty(self) -> int:
        """One batch less of all vectors of the ledger is at Pinecone. Returns how many vectors that were, 0 at the end.
        Raises StoreError; `busy` where all that is left is still being written."""
        if not MemoryVector.objects.exists():
            return 0
        if not settings.PINECONE_API_KEY:
            raise StoreError("PINECONE_API_KEY is needed.", code="not_configured", retryable=False)
        rows = list(MemoryVector.objects.filter(_settled()).order_by("host", "namespace", "vector_id")[:DELETED])
        _delete(rows or list(MemoryVector.objects.all()[:1]))
        return len(rows)

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[Hit]:
        """By meaning: sessions with a passage that is near to `query`, within `MEMORY_SEARCH_SECONDS` in all."""
        scores = self.nearest(client_id, query, limit, filters, seconds=settings.MEMORY_SEARCH_SECONDS)
        return self.hits(client_id, scores)[:limit]

    def nearest(
        self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS, *, seconds: float
    ) -> dict[str, float]:
        """How near the vectors are that are near to `query`, by their ids, within `seconds` in all. Asks the network
        alone. Raises StoreError."""
        _must_be_configured()
        if not words.parse(query).wanted:
            return {}
        deadline = timezone.now() + timedelta(seconds=seconds)
        [vector] = _embedded([query[: words.QUERY_CHARACTERS]], seconds=seconds)
        asked: dict[str, Any] = {
            "vector": vector,
            "top_k": min(limit * PARTS, MOST),
            "namespace": namespace_of(client_id),
            "filter": _filter(filters),
        }
        left = max((deadline - timezone.now()).total_seconds(), 0.05)
        answer = call(settings.PINECONE_HOST, lambda index: index.query(**asked), left)
        return {match.id: match.score for match in answer.matches if match.score >= _least_score()}

    def hits(self, client_id: UUID, scores: dict[str, float]) -> list[Hit]:
        """The sessions of these vectors, best first, each with its best passage, as our ledger knows them."""
        return _hits(client_id, scores)


# --- the ledger ------------------------------------------------------------------------------------------------------
def _upsert(record: SessionRecord, batch: Sequence[Passage], vectors: Sequence[list[float]]) -> None:
    """The vectors of `batch` are in the ledger, then at Pinecone, then known to be there."""
    host, seconds = settings.PINECONE_HOST, settings.PINECONE_TIMEOUT_SECONDS
    _note(record, batch, timezone.now() + timedelta(seconds=seconds) + STILL_UNDER_WAY)
    ids = [_vector_id(record, passage) for passage in batch]
    sent = [
        {"id": vector_id, "values": vector, "metadata": _metadata(record, passage)}
        for vector_id, passage, vector in zip(ids, batch, vectors, strict=True)
    ]
    namespace = namespace_of(record.client_id)
    answer = call(host, lambda index: index.upsert(vectors=sent, namespace=namespace), seconds)
    if answer.upserted_count != len(sent):
        raise StoreError("Pinecone took only a part of the vectors.", code="bad_answer", retryable=True)
    MemoryVector.objects.filter(pk__in=ids).update(upserted_at=timezone.now(), upserting_until=None)


def _note(record: SessionRecord, batch: Sequence[Passage], until: datetime) -> None:
    """The ledger has the vectors of `batch`, which may be written `until` then. Busy while a request with another text
    may still be under way: it would arrive after ours.

    The session's row is locked: whoever forgets a session deletes it first, so that either we see that it is gone, or
    it sees that we are busy.
    """
    rows = [
        MemoryVector(
            vector_id=_vector_id(record, passage),
            conversation_id=record.conversation_id,
            client_id=record.client_id,
            host=settings.PINECONE_HOST,
            namespace=namespace_of(record.client_id),
            part=passage.part,
            first_position=passage.first,
            last_position=passage.last,
            model=settings.OPENAI_EMBEDDING_MODEL,
            digest=_digest(record, passage),
            upserting_until=until,
            upserted_at=None,
        )
        for passage in batch
    ]
    columns = ["client_id", "host", "namespace", "part", "first_position", "last_position", "model", "digest"]
    with transaction.atomic(durable=True):
        if not Memory.objects.plain().select_for_update(no_key=True).filter(pk=record.conversation_id).exists():
            raise StoreError("The session was forgotten meanwhile.", code="forgotten", retryable=False)
        digests = {row.vector_id: row.digest for row in rows}
        noted = MemoryVector.objects.filter(pk__in=digests, upserting_until__isnull=False)
        _must_be_settled([row for row in noted if row.digest != digests[row.vector_id]])
        MemoryVector.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["vector_id"],
            update_fields=[*columns, "upserting_until", "upserted_at"],
        )


def _delete(rows: Sequence[MemoryVector]) -> None:
    """The vectors of `rows` are gone from Pinecone, then from the ledger. Busy while a request may still be writing one
    of them: it would be there again, and unknown."""
    _must_be_settled(rows)

    def place(row: MemoryVector) -> tuple[str, str]:
        return row.host, row.namespace

    for (host, namespace), group in groupby(sorted(rows, key=place), key=place):
        ids = [row.vector_id for row in group]
        for start in range(0, len(ids), DELETED):
            some = ids[start : start + DELETED]
            call(host, _deleting(some, namespace), settings.PINECONE_TIMEOUT_SECONDS)
            MemoryVector.objects.filter(pk__in=some).delete()


def _lost() -> QuerySet[MemoryVector]:
    """Vectors of sessions whose text is gone, which nobody may still be writing."""
    known = Memory.objects.filter(pk=OuterRef("conversation_id"))
    return MemoryVector.objects.filter(_settled(), ~Exists(known)).order_by("host", "namespace", "vector_id")


def _settled() -> Q:
    return Q(upserting_until=None) | Q(upserting_until__lte=timezone.now())


def _must_be_settled(rows: Sequence[MemoryVector]) -> None:
    """None of the vectors may still be written by a request that is under way, or was given up a short while ago."""
    now = timezone.now()
    if busy := [row.upserting_until for row in rows if row.upserting_until and row.upserting_until > now]:
        wait = (max(busy) - now).total_seconds()
        raise StoreError("Vectors of it are still being written.", code="busy", retryable=True, retry_after=wait)


def _deleting(ids: list[str], namespace: str) -> Callable[[AsyncIndex], Coroutine[Any, Any, None]]:
    async def delete(index: AsyncIndex) -> None:
        from pinecone import NotFoundError

        try:
            await index.delete(ids=ids, namespace=namespace)
        except NotFoundError as error:
            # Pinecone says so of a namespace that never held anything; gRPC's code 5, "not found", is its word for it.
            if not (isinstance(error.body, dict) and error.body.get("code") == 5):
                raise

    return delete


def _is_there(row: MemoryVector, digest: str) -> bool:
    return row.upserted_at is not None and row.digest == digest


def _hits(client_id: UUID, scores: dict[str, float]) -> list[Hit]:
    """The sessions of the vectors, each with its best passage. A vector that our ledger does not know as the client's
    counts for nothing."""
    rows = MemoryVector.objects.filter(pk__in=scores, client_id=client_id)
    best: dict[UUID, Hit] = {}
    for row in sorted(rows, key=lambda row: (-scores[row.vector_id], row.part)):
        hit = Hit(row.conversation_id, scores[row.vector_id], row.first_position, row.last_position)
        best.setdefault(row.conversation_id, hit)
    return list(best.values())


# --- what Pinecone is told -------------------------------------------------------------------------------------------
def _vector_id(record: SessionRecord, passage: Passage) -> str:
    return f"{record.conversation_id}:{passage.part}"


def namespace_of(client_id: UUID) -> str:
    """Each client has a namespace of its own."""
    return str(client_id)


def _metadata(record: SessionRecord, passage: Passage) -> dict[str, Any]:
    """What a search is narrowed by, and where the passage stands: no text."""
    return {
        "conversation_id": str(record.conversation_id),
        "contact_id": str(record.contact_id),
        "channel": record.channel,
        "ended_at": int(record.ended_at.timestamp()),
        "position": passage.first,
    }


def _filter(filters: Filters) -> dict[str, Any] | None:
    """The same in Pinecone's words; None for no filter at all."""
    conditions: dict[str, Any] = {}
    if filters.contact_id:
        conditions["contact_id"] = {"$eq": str(filters.contact_id)}
    if filters.channel:
        conditions["channel"] = {"$eq": filters.channel}
    ended: dict[str, int] = {}
    if filters.ended_from:
        ended["$gte"] = int(filters.ended_from.timestamp())
    if filters.ended_before:
        ended["$lt"] = int(filters.ended_before.timestamp())
    if ended:
        conditions["ended_at"] = ended
    return conditions or None


def _digest(record: SessionRecord, passage: Passage) -> str:
    """Of everything that makes the vector and its metadata."""
    model = [settings.OPENAI_EMBEDDING_MODEL, settings.OPENAI_EMBEDDING_DIMENSIONS]
    everything = json.dumps([passage.text, passage.last, _metadata(record, passage), model, settings.PINECONE_HOST])
    return hashlib.blake2b(everything.encode(), digest_size=16).hexdigest()


def _least_score() -> float:
    return float(settings.MEMORY_LEAST_SIMILARITY) / 100


# --- the network -----------------------------------------------------------------------------------------------------
def _embedded(texts: Sequence[str], seconds: float | None = None) -> list[list[float]]:
    try:
        return llm.embed(texts, seconds=seconds)
    except LLMError as error:
        code, retryable, wait = f"embedding_{error.code}", error.retryable, error.retry_after
    raise StoreError("There are no embeddings.", code=code, retryable=retryable, retry_after=wait)


def _must_be_configured() -> None:
    if not is_configured():
        sentence = "PINECONE_API_KEY, PINECONE_HOST and a language model are needed."
        raise StoreError(sentence, code="not_configured", retryable=False)
