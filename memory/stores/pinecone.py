"""Memory at Pinecone: conversations found by meaning, in passages whose vectors OpenAI's model makes.

Pinecone has vectors and the metadata for filters (ids, channel, time), never text. Every vector id is in our own
ledger (`memory_vectors`) before the vector is sent, and vectors are deleted by those ids: Pinecone has no delete by
prefix, and some index types refuse one by filter. A client's vectors are in a namespace of its own.

`pinecone` is imported inside functions: it takes a third of a second and 25 MB that the web process never needs.
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

from memory import words
from memory.language_models import choosing, embeddings
from memory.language_models.choosing import Purpose
from memory.language_models.contract import LLMError, ModelAccess
from memory.models import Memory, MemoryVector
from memory.records import NO_FILTERS, ConversationRecord, Filters, StoreHit
from memory.stores.contract import StoreError
from memory.stores.passages import Passage, passages
from memory.stores.pinecone_client import call

if TYPE_CHECKING:
    from pinecone.async_client.async_index import AsyncIndex

BATCH = 40  # passages embedded in one call: some 12,000 tokens of the 300,000 that OpenAI takes
REQUEST_BYTES = 1_800_000  # of vectors in one upsert: Pinecone takes 2 MB and 1,000 vectors
NUMBER_BYTES = 24  # of a vector's number in JSON, at most
DELETE_BATCH = 1_000  # ids in one delete: Pinecone takes no more
VECTORS_PER_HIT = 5  # vectors queried for each wanted conversation: several of its passages may match
MAX_VECTORS = 500  # in one query
LATE_ARRIVAL = timedelta(seconds=60)  # after its deadline a request that we gave up may still arrive, but not later


def is_configured() -> bool:
    """Return whether an index is configured."""
    return bool(settings.PINECONE_API_KEY and settings.PINECONE_HOST)


def serves(client_id: UUID) -> bool:
    """Return whether an index is configured, and a provider that makes the vectors of the client's texts."""
    return is_configured() and choosing.access_for(client_id, Purpose.EMBEDDINGS) is not None


class PineconeStore:
    """The index at `PINECONE_HOST`. Only conversations that are in the table `memories` are written."""

    name = "pinecone"

    def remember(self, record: ConversationRecord) -> None:
        """Store a vector for each passage of the conversation, and delete its other vectors.

        Vectors that are stored already are neither embedded nor sent again.
        """
        _must_be_configured()
        wanted = {_vector_id(record, passage): (passage, _digest(record, passage)) for passage in passages(record)}
        known = {
            row.vector_id: row for row in MemoryVector.objects.of_conversation(record.client_id, record.conversation_id)
        }
        _delete([row for row in known.values() if row.vector_id not in wanted or row.host != settings.PINECONE_HOST])
        missing = [
            passage
            for vector_id, (passage, digest) in wanted.items()
            if not ((row := known.get(vector_id)) and _is_stored(row, digest))
        ]
        embedder = choosing.access_for(record.client_id, Purpose.EMBEDDINGS) if missing else None
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            vectors = _embeddings(embedder, [passage.text for passage in batch])
            size = max(REQUEST_BYTES // (len(vectors[0]) * NUMBER_BYTES + 500), 1)
            for first in range(0, len(batch), size):
                _upsert(record, batch[first : first + size], vectors[first : first + size])

    def forget(self, client_id: UUID, conversation_id: UUID) -> None:
        """Delete the conversation's vectors. This needs Pinecone's key, and no model."""
        rows = list(MemoryVector.objects.of_conversation(client_id, conversation_id))
        if rows and not settings.PINECONE_API_KEY:
            raise StoreError("Set PINECONE_API_KEY.", code="not_configured", retryable=False)
        _delete(rows)

    def delete_orphaned(self, seconds: float) -> int:
        """Delete the vectors of conversations whose text is deleted, for `seconds`, and return how many were deleted.

        Vectors that may still be being written are left for later.
        """
        deleted, until = 0, time.monotonic() + seconds
        while orphaned := list(_orphaned()[:DELETE_BATCH]):
            if not settings.PINECONE_API_KEY:
                raise StoreError("Set PINECONE_API_KEY.", code="not_configured", retryable=False)
            _delete(orphaned)
            deleted += len(orphaned)
            if time.monotonic() > until:
                break
        return deleted

    def empty(self) -> int:
        """Delete one batch of the ledger's vectors from Pinecone and return how many were deleted, 0 at the end.

        Raises StoreError; `busy` if all vectors that are left are still being written.
        """
        if not MemoryVector.objects.exists():
            return 0
        if not settings.PINECONE_API_KEY:
            raise StoreError("Set PINECONE_API_KEY.", code="not_configured", retryable=False)
        rows = list(MemoryVector.objects.filter(_settled()).order_by("host", "namespace", "vector_id")[:DELETE_BATCH])
        _delete(rows or list(MemoryVector.objects.all()[:1]))
        return len(rows)

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[StoreHit]:
        """Return the conversations with a passage near to `query` in meaning, within `MEMORY_SEARCH_SECONDS`."""
        embedder = choosing.access_for(client_id, Purpose.EMBEDDINGS)
        seconds = settings.MEMORY_SEARCH_SECONDS
        scores = self.nearest(client_id, query, limit, filters, seconds=seconds, embedder=embedder)
        return self.hits(client_id, scores)[:limit]

    def nearest(
        self,
        client_id: UUID,
        query: str,
        limit: int,
        filters: Filters = NO_FILTERS,
        *,
        seconds: float,
        embedder: ModelAccess | None,
    ) -> dict[str, float]:
        """Return the similarity of the vectors nearest to `query`, by their ids, within `seconds` in all.

        Uses the network only, and no database. Raises StoreError.
        """
        _must_be_configured()
        if not words.parse_query(query).wanted:
            return {}
        deadline = timezone.now() + timedelta(seconds=seconds)
        [vector] = _embeddings(embedder, [query[: words.QUERY_CHARACTERS]], seconds=seconds)
        asked: dict[str, Any] = {
            "vector": vector,
            "top_k": min(limit * VECTORS_PER_HIT, MAX_VECTORS),
            "namespace": namespace_of(client_id),
            "filter": _filter(filters),
        }
        left = max((deadline - timezone.now()).total_seconds(), 0.05)
        answer = call(settings.PINECONE_HOST, lambda index: index.query(**asked), left)
        return {match.id: match.score for match in answer.matches if match.score >= _least_score()}

    def hits(self, client_id: UUID, scores: dict[str, float]) -> list[StoreHit]:
        """Return the conversations of these vectors, best first, each with its best passage.

        A vector that our ledger does not have as the client's is ignored.
        """
        rows = MemoryVector.objects.filter(pk__in=scores, client_id=client_id)
        best: dict[UUID, StoreHit] = {}
        for row in sorted(rows, key=lambda row: (-scores[row.vector_id], row.part)):
            hit = StoreHit(row.conversation_id, scores[row.vector_id], row.first_position, row.last_position)
            best.setdefault(row.conversation_id, hit)
        return list(best.values())


# --- the ledger ------------------------------------------------------------------------------------------------------
def _upsert(record: ConversationRecord, batch: Sequence[Passage], vectors: Sequence[list[float]]) -> None:
    """Write the vectors of `batch` to the ledger, then to Pinecone, then note in the ledger that they are stored."""
    host, seconds = settings.PINECONE_HOST, settings.PINECONE_TIMEOUT_SECONDS
    _note(record, batch, timezone.now() + timedelta(seconds=seconds) + LATE_ARRIVAL)
    ids = [_vector_id(record, passage) for passage in batch]
    sent = [
        {"id": vector_id, "values": vector, "metadata": _metadata(record, passage)}
        for vector_id, passage, vector in zip(ids, batch, vectors, strict=True)
    ]
    namespace = namespace_of(record.client_id)
    answer = call(host, lambda index: index.upsert(vectors=sent, namespace=namespace), seconds)
    if answer.upserted_count != len(sent):
        raise StoreError("Pinecone stored only some of the vectors.", code="bad_answer", retryable=True)
    ours = MemoryVector.objects.filter(client_id=record.client_id, pk__in=ids)
    ours.update(upserted_at=timezone.now(), upserting_until=None)


def _note(record: ConversationRecord, batch: Sequence[Passage], until: datetime) -> None:
    """Write to the ledger that the vectors of `batch` may be upserted until then.

    Raises StoreError; `busy` while a request with another text may still be under way, which would arrive after ours.
    The conversation's row is locked. Forgetting deletes that row first: so either we see that it is deleted, or the
    other process sees that we are busy.
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
    columns = ["host", "namespace", "part", "first_position", "last_position", "model", "digest"]
    with transaction.atomic(durable=True):
        memory = Memory.objects.of(record.client_id).plain().filter(pk=record.conversation_id)
        if not memory.select_for_update(no_key=True).exists():
            raise StoreError("The conversation was forgotten meanwhile.", code="forgotten", retryable=False)
        digests = {row.vector_id: row.digest for row in rows}
        known = MemoryVector.objects.filter(client_id=record.client_id, pk__in=digests)
        noted = known.filter(upserting_until__isnull=False)
        _must_be_settled([row for row in noted if row.digest != digests[row.vector_id]])
        MemoryVector.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["client_id", "vector_id"],
            update_fields=[*columns, "upserting_until", "upserted_at"],
        )


def _delete(rows: Sequence[MemoryVector]) -> None:
    """Delete the vectors of `rows` from Pinecone, then from the ledger.

    Raises StoreError; `busy` while a request may still be writing one of them: it would be stored again, and unknown.
    """
    _must_be_settled(rows)

    def namespace_key(row: MemoryVector) -> tuple[str, str, str]:
        return row.host, row.namespace, str(row.client_id)

    for (host, namespace, client_id), group in groupby(sorted(rows, key=namespace_key), key=namespace_key):
        ids = [row.vector_id for row in group]
        for start in range(0, len(ids), DELETE_BATCH):
            some = ids[start : start + DELETE_BATCH]
            call(host, _delete_request(some, namespace), settings.PINECONE_TIMEOUT_SECONDS)
            MemoryVector.objects.filter(client_id=client_id, pk__in=some).delete()


def _orphaned() -> QuerySet[MemoryVector]:
    """Return the vectors of conversations whose text is deleted, except those that may still be being written."""
    known = Memory.objects.filter(client_id=OuterRef("client_id"), pk=OuterRef("conversation_id"))
    return MemoryVector.objects.filter(_settled(), ~Exists(known)).order_by("host", "namespace", "vector_id")


def _settled() -> Q:
    return Q(upserting_until=None) | Q(upserting_until__lte=timezone.now())


def _must_be_settled(rows: Sequence[MemoryVector]) -> None:
    """Raise StoreError (`busy`) if a request under way, or given up a short while ago, may still write a vector."""
    now = timezone.now()
    if busy := [row.upserting_until for row in rows if row.upserting_until and row.upserting_until > now]:
        wait = (max(busy) - now).total_seconds()
        raise StoreError(
            "Vectors of the conversation are still being written.", code="busy", retryable=True, retry_after=wait
        )


def _delete_request(ids: list[str], namespace: str) -> Callable[[AsyncIndex], Coroutine[Any, Any, None]]:
    async def delete(index: AsyncIndex) -> None:
        from pinecone import NotFoundError

        try:
            await index.delete(ids=ids, namespace=namespace)
        except NotFoundError as error:
            # Pinecone's answer for a namespace that never had a vector; its body has gRPC's code 5, "not found".
            if not (isinstance(error.body, dict) and error.body.get("code") == 5):
                raise

    return delete


def _is_stored(row: MemoryVector, digest: str) -> bool:
    return row.upserted_at is not None and row.digest == digest


# --- ids, metadata and filters ---------------------------------------------------------------------------------------
def _vector_id(record: ConversationRecord, passage: Passage) -> str:
    return f"{record.conversation_id}:{passage.part}"


def namespace_of(client_id: UUID) -> str:
    """Return the client's own namespace."""
    return str(client_id)


def _metadata(record: ConversationRecord, passage: Passage) -> dict[str, Any]:
    """Return the metadata for filters, and the passage's position; no text."""
    return {
        "conversation_id": str(record.conversation_id),
        "contact_id": str(record.contact_id),
        "channel": record.channel,
        "ended_at": int(record.ended_at.timestamp()),
        "position": passage.first,
    }


def _filter(filters: Filters) -> dict[str, Any] | None:
    """Return the filters in Pinecone's language; None for no filter."""
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


def _digest(record: ConversationRecord, passage: Passage) -> str:
    """Return a hash of everything that determines the vector and its metadata."""
    model = [settings.OPENAI_EMBEDDING_MODEL, settings.OPENAI_EMBEDDING_DIMENSIONS]
    everything = json.dumps([passage.text, passage.last, _metadata(record, passage), model, settings.PINECONE_HOST])
    return hashlib.blake2b(everything.encode(), digest_size=16).hexdigest()


def _least_score() -> float:
    return float(settings.MEMORY_LEAST_SIMILARITY) / 100


# --- the network -----------------------------------------------------------------------------------------------------
def _embeddings(access: ModelAccess | None, texts: Sequence[str], seconds: float | None = None) -> list[list[float]]:
    if access is None:
        raise StoreError("No provider of embeddings is configured.", code="not_configured", retryable=False)
    try:
        return embeddings.embed(access, texts, seconds=seconds)
    except LLMError as error:
        code, retryable, wait = f"embedding_{error.code}", error.retryable, error.retry_after
    raise StoreError("The embeddings failed.", code=code, retryable=retryable, retry_after=wait)


def _must_be_configured() -> None:
    if not is_configured():
        sentence = "Pinecone is not configured. Set PINECONE_API_KEY and PINECONE_HOST."
        raise StoreError(sentence, code="not_configured", retryable=False)
