"""Helpers that remember conversations at the fake index, and read what it has."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from memory.models import MemoryVector
from memory.records import ConversationRecord
from memory.stores.contract import StoreError
from memory.stores.database import DatabaseStore
from memory.stores.pinecone import PineconeStore
from tests.fakes.pinecone import FakePinecone

LONG = (
    "Tell me everything about kettles. " * 30,
    "Gladly. " * 140,
    "And teapots? " * 90,
) * 20  # more passages than one batch takes


def keep(record: ConversationRecord) -> ConversationRecord:
    """Remember the record in both stores and return it, normalised."""
    record = record.normalised()
    DatabaseStore().remember(record)
    PineconeStore().remember(record)
    return record


def failure(record: ConversationRecord) -> StoreError:
    """Return the error of remembering the record."""
    with pytest.raises(StoreError) as caught:
        keep(record)
    return caught.value


def ledger(record: ConversationRecord) -> list[str]:
    """Return the ids of the vectors that our ledger has as stored."""
    known = MemoryVector.objects.filter(conversation_id=record.conversation_id, upserted_at__isnull=False)
    return sorted(known.values_list("vector_id", flat=True))


def there(index: FakePinecone, record: ConversationRecord) -> list[str]:
    """Return the ids of the vectors in the client's namespace of the index."""
    return sorted(index.vectors(str(record.client_id)))


def over() -> None:
    """End the time in which a request that was given up may still arrive."""
    past = timezone.now() - timedelta(seconds=1)
    MemoryVector.objects.filter(upserting_until__isnull=False).update(upserting_until=past)
