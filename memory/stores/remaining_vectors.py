"""Proof that vectors are gone: Pinecone is asked for them, by the ids of our ledger and by whose they would be."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from django.conf import settings

from memory.models import MemoryVector
from memory.stores.at_pinecone import call
from memory.stores.pinecone import DELETED, namespace_of

if TYPE_CHECKING:
    from pinecone.async_client.async_index import AsyncIndex

_T = TypeVar("_T")

FETCHED = 100  # ids in one request: they stand in its address
FOUND = 1_000  # vectors that one query brings at most


class Place(NamedTuple):
    """Where a vector is, or was: the index, the namespace and its id there."""

    host: str
    namespace: str
    vector_id: str


def places_of(conversation_ids: Sequence[UUID]) -> list[Place]:
    """Where the sessions' vectors are or may be, by the ledger."""
    rows = MemoryVector.objects.filter(conversation_id__in=conversation_ids)
    return [Place(*row) for row in rows.order_by("vector_id").values_list("host", "namespace", "vector_id")]


def found_of(client_id: UUID, contact_id: UUID, known: Iterable[Place]) -> list[Place]:
    """Vectors of the contact that are there still: those of `known` that can be fetched, and whatever a query for the
    contact finds besides, in the indexes of `known` and in the one that is configured. Raises StoreError."""
    known = sorted(Place(*place) for place in known)
    found = set()
    for (host, namespace), group in groupby(known, key=lambda place: (place.host, place.namespace)):
        ids = [place.vector_id for place in group]
        for start in range(0, len(ids), FETCHED):
            found |= {Place(host, namespace, each) for each in _fetched(host, namespace, ids[start : start + FETCHED])}
    hosts = {place.host for place in known}
    if settings.PINECONE_API_KEY and settings.PINECONE_HOST:
        hosts.add(settings.PINECONE_HOST)
    for host in sorted(hosts):
        namespace = namespace_of(client_id)
        found |= {Place(host, namespace, each) for each in _matching(host, namespace, contact_id)}
    return sorted(found)


def delete(places: Iterable[Place]) -> None:
    """The vectors are gone from Pinecone, whatever our ledger says. Raises StoreError."""
    for (host, namespace), group in groupby(sorted(places), key=lambda place: (place.host, place.namespace)):
        ids = [place.vector_id for place in group]
        for start in range(0, len(ids), DELETED):
            some = ids[start : start + DELETED]
            _ask(host, _deleting(some, namespace))


def _deleting(ids: list[str], namespace: str) -> Callable[[AsyncIndex], Coroutine[Any, Any, Any]]:
    return lambda index: index.delete(ids=ids, namespace=namespace)


def _fetched(host: str, namespace: str, ids: list[str]) -> list[str]:
    answer = _ask(host, lambda index: index.fetch(ids=ids, namespace=namespace))
    return list(answer.vectors)


def _matching(host: str, namespace: str, contact_id: UUID) -> list[str]:
    """A query needs some vector of the index's length; which one does not matter where the filter decides."""
    stats = _ask(host, lambda index: index.describe_index_stats())
    if not stats.dimension:
        return []  # nothing was ever written
    asked: dict[str, Any] = {
        "vector": [1.0] * stats.dimension,
        "top_k": FOUND,
        "namespace": namespace,
        "filter": {"contact_id": {"$eq": str(contact_id)}},
    }
    answer = _ask(host, lambda index: index.query(**asked))
    return [match.id for match in answer.matches]


def _ask(host: str, request: Callable[[AsyncIndex], Coroutine[Any, Any, _T]]) -> _T:
    return call(host, request, settings.PINECONE_TIMEOUT_SECONDS)
