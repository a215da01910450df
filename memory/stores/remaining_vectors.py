"""Proves that vectors are deleted: Pinecone is asked for them by their ids in our ledger, and by their contact."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from django.conf import settings

from memory.models import MemoryVector
from memory.stores.pinecone import DELETE_BATCH, namespace_of
from memory.stores.pinecone_client import call

if TYPE_CHECKING:
    from pinecone.async_client.async_index import AsyncIndex

_T = TypeVar("_T")

FETCH_BATCH = 100  # ids in one request, whose URL contains them
QUERY_LIMIT = 1_000  # vectors in the answer to one query, at most


class VectorLocation(NamedTuple):
    """The location of a vector at Pinecone: the index, the namespace and its id there."""

    host: str
    namespace: str
    vector_id: str


def vector_locations(client_id: UUID, conversation_ids: Sequence[UUID]) -> list[VectorLocation]:
    """Return the locations of the conversations' vectors by the ledger: all that are or may be at Pinecone."""
    rows = MemoryVector.objects.filter(client_id=client_id, conversation_id__in=conversation_ids)
    return [VectorLocation(*row) for row in rows.order_by("vector_id").values_list("host", "namespace", "vector_id")]


def find_remaining(client_id: UUID, contact_id: UUID, known: Iterable[VectorLocation]) -> list[VectorLocation]:
    """Return the contact's vectors that are still at Pinecone.

    These are the vectors at `known` that can be fetched, and every other vector that a query for the contact finds, in
    the indexes of `known` and in the configured one. Raises StoreError.
    """
    known = sorted(VectorLocation(*each) for each in known)
    found = set()
    for (host, namespace), group in groupby(known, key=lambda each: (each.host, each.namespace)):
        ids = [each.vector_id for each in group]
        for start in range(0, len(ids), FETCH_BATCH):
            fetched = _fetched(host, namespace, ids[start : start + FETCH_BATCH])
            found |= {VectorLocation(host, namespace, vector_id) for vector_id in fetched}
    hosts = {each.host for each in known}
    if settings.PINECONE_API_KEY and settings.PINECONE_HOST:
        hosts.add(settings.PINECONE_HOST)
    for host in sorted(hosts):
        namespace = namespace_of(client_id)
        found |= {VectorLocation(host, namespace, vector_id) for vector_id in _matching(host, namespace, contact_id)}
    return sorted(found)


def delete(locations: Iterable[VectorLocation]) -> None:
    """Delete the vectors from Pinecone, whether or not our ledger has them. Raises StoreError."""
    for (host, namespace), group in groupby(sorted(locations), key=lambda each: (each.host, each.namespace)):
        ids = [each.vector_id for each in group]
        for start in range(0, len(ids), DELETE_BATCH):
            some = ids[start : start + DELETE_BATCH]
            _call(host, _delete_request(some, namespace))


def _delete_request(ids: list[str], namespace: str) -> Callable[[AsyncIndex], Coroutine[Any, Any, Any]]:
    return lambda index: index.delete(ids=ids, namespace=namespace)


def _fetched(host: str, namespace: str, ids: list[str]) -> list[str]:
    answer = _call(host, lambda index: index.fetch(ids=ids, namespace=namespace))
    return list(answer.vectors)


def _matching(host: str, namespace: str, contact_id: UUID) -> list[str]:
    """Return the ids of the contact's vectors. A query needs a vector, but any will do: the filter decides."""
    stats = _call(host, lambda index: index.describe_index_stats())
    if not stats.dimension:
        return []  # nothing was ever written
    asked: dict[str, Any] = {
        "vector": [1.0] * stats.dimension,
        "top_k": QUERY_LIMIT,
        "namespace": namespace,
        "filter": {"contact_id": {"$eq": str(contact_id)}},
    }
    answer = _call(host, lambda index: index.query(**asked))
    return [match.id for match in answer.matches]


def _call(host: str, request: Callable[[AsyncIndex], Coroutine[Any, Any, _T]]) -> _T:
    return call(host, request, settings.PINECONE_TIMEOUT_SECONDS)
