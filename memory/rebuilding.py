"""Rebuilds a store of memory: the index in PostgreSQL, or Pinecone, which can also be emptied.

Conversations are written one after the other, in the order of their ids. A row holds the progress, so that an
interrupted rebuild is resumed; writing a conversation twice does no harm. Conversations that end meanwhile are
remembered as always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from memory.models import Memory, MemoryRebuild, MemoryVector
from memory.stores.contract import StoreError
from memory.stores.database import DatabaseStore
from memory.stores.pinecone import PineconeStore, is_configured, serves

Kind = MemoryRebuild.Kind
BATCH = 100  # ids read at a time
MAX_ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds before the next attempt
MAX_CHANGES = 5  # changes of a conversation while it is being written
Progress = Callable[[int, int], None]
_T = TypeVar("_T")


def start(kind: str, *, restart: bool = False) -> MemoryRebuild:
    """Return the interrupted rebuild of this kind, or a new one.

    A new rebuild begins if none was interrupted, if that one was for another index or model, and with `restart`. Raises
    StoreError (`not_configured`).
    """
    if kind == Kind.PINECONE and not is_configured():
        sentence = "Pinecone is not configured. Set PINECONE_API_KEY, PINECONE_HOST and a language model."
        raise StoreError(sentence, code="not_configured", retryable=False)
    interrupted = _interrupted(kind)
    if interrupted and not restart and _is_for_current_target(interrupted):
        return interrupted
    if interrupted:
        MemoryRebuild.objects.filter(pk=interrupted.pk).update(ended_at=timezone.now(), problem="restarted")
    host, model = _target(kind)
    return MemoryRebuild.objects.create(kind=kind, host=host, model=model)


def preview(kind: str, *, restart: bool = False) -> tuple[int, int]:
    """Return how many were done before the interruption, and how many are left. Changes nothing."""
    interrupted = _interrupted(kind)
    if interrupted is None or restart or not _is_for_current_target(interrupted):
        interrupted = MemoryRebuild(kind=kind)
    return interrupted.done, count_left(interrupted)


def _interrupted(kind: str) -> MemoryRebuild | None:
    return MemoryRebuild.objects.filter(kind=kind, ended_at=None).first()


def _target(kind: str) -> tuple[str, str]:
    """Return the index and the model that a rebuild of this kind would use now."""
    return (settings.PINECONE_HOST, settings.OPENAI_EMBEDDING_MODEL) if kind == Kind.PINECONE else ("", "")


def _is_for_current_target(rebuild: MemoryRebuild) -> bool:
    return (rebuild.host, rebuild.model) == _target(rebuild.kind)


def count_left(rebuild: MemoryRebuild) -> int:
    """Return how many conversations (or vectors, when Pinecone is emptied) are left."""
    if rebuild.kind == Kind.EMPTY_PINECONE:
        return MemoryVector.objects.count()
    return _memories_after(_after(rebuild)).count()


def run(
    rebuild: MemoryRebuild,
    progress: Progress = lambda _done, _left: None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> MemoryRebuild:
    """Run the rebuild to its end and return it.

    progress    called now and then with the numbers of conversations that are done and left
    sleep       called with the seconds before another attempt

    A retryable error is tried again, MAX_ATTEMPTS times in all. Raises StoreError; then a further call resumes the
    rebuild.
    """
    do = {Kind.DATABASE: _reindex, Kind.PINECONE: _to_pinecone}.get(Kind(rebuild.kind))
    try:
        if do is None:
            _empty_pinecone(rebuild, progress, sleep)
        else:
            for client_id, conversation_id in _ids_after(_after(rebuild)):
                _with_retries(partial(do, client_id, conversation_id), sleep)
                rebuild.after_client, rebuild.after, rebuild.done = client_id, conversation_id, rebuild.done + 1
                rebuild.save(update_fields=["after_client", "after", "done"])
                if rebuild.done % BATCH == 0:
                    progress(rebuild.done, count_left(rebuild))
    except StoreError as error:
        rebuild.problem = f"{error.code}: {error}"[:200]
        rebuild.save(update_fields=["problem"])
        raise
    rebuild.problem, rebuild.ended_at = "", timezone.now()
    rebuild.save(update_fields=["problem", "ended_at"])
    return rebuild


def _after(rebuild: MemoryRebuild) -> tuple[UUID, UUID] | None:
    """The client's id and its own of the conversation that was finished last."""
    return (rebuild.after_client, rebuild.after) if rebuild.after_client and rebuild.after else None


def _memories_after(after: tuple[UUID, UUID] | None) -> QuerySet[Memory]:
    memories = Memory.objects.order_by("client_id", "pk")
    if after is None:
        return memories
    client_id, conversation_id = after
    return memories.filter(Q(client_id__gt=client_id) | Q(client_id=client_id, pk__gt=conversation_id))


def _ids_after(after: tuple[UUID, UUID] | None) -> Iterator[tuple[UUID, UUID]]:
    """Yield all (client id, id) after `after`, read in batches: some that are written meanwhile may be among them."""
    while batch := list(_memories_after(after).values_list("client_id", "pk")[:BATCH]):
        yield from batch
        after = batch[-1]


def _with_retries(do: Callable[[], _T], sleep: Callable[[float], None]) -> _T:
    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return do()
        except StoreError as error:
            if not error.retryable:
                raise
            sleep(min(max(error.retry_after or 0, 2.0**attempt), LONGEST_WAIT))
    return do()


# --- one conversation ------------------------------------------------------------------------------------------------
def _reindex(client_id: UUID, conversation_id: UUID) -> None:
    DatabaseStore().reindex(client_id, conversation_id)


def _to_pinecone(client_id: UUID, conversation_id: UUID) -> None:
    """Write the conversation's vectors to Pinecone, again if it changed meanwhile."""
    for _ in range(MAX_CHANGES):
        before = Memory.objects.of(client_id).plain().filter(pk=conversation_id).first()
        if before is None or not serves(before.client_id):
            return
        try:
            PineconeStore().remember(before.as_record().normalised())
        except StoreError as error:
            if error.code == "forgotten":
                return
            raise
        now = Memory.objects.of(client_id).plain().filter(pk=conversation_id).first()
        if now is None or now.as_record() == before.as_record():
            return
    raise StoreError("The conversation keeps changing.", code="busy", retryable=True)


def _empty_pinecone(rebuild: MemoryRebuild, progress: Progress, sleep: Callable[[float], None]) -> None:
    while deleted := _with_retries(PineconeStore().empty, sleep):
        rebuild.done += deleted
        rebuild.save(update_fields=["done"])
        progress(rebuild.done, count_left(rebuild))
