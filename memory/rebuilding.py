"""Going over all of memory: to write it anew into a store, to begin with Pinecone, or to leave it.

One session after the other, along their ids. How far it came is on a row, so that whatever breaks off is resumed there;
a session that is done twice is as if it were done once. Sessions that end meanwhile are remembered as always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from memory.models import Memory, MemoryRebuild, MemoryVector
from memory.stores.contract import StoreError
from memory.stores.database import DatabaseStore
from memory.stores.pinecone import PineconeStore, is_configured

Kind = MemoryRebuild.Kind
AT_ONCE = 100  # ids read at a time
TRIES = 5
LONGEST_WAIT = 60.0  # seconds before another try
CHANGED_AT_MOST = 5  # times that a session may change while it is being written
Progress = Callable[[int, int], None]
_T = TypeVar("_T")


def begin(kind: str, *, restart: bool = False) -> MemoryRebuild:
    """The rebuild that broke off, or a new one where there is none, where it was for another index or model, or on
    `restart`. Raises StoreError (`not_configured`)."""
    if kind == Kind.PINECONE and not is_configured():
        sentence = "PINECONE_API_KEY, PINECONE_HOST and a language model are needed."
        raise StoreError(sentence, code="not_configured", retryable=False)
    open_one = _broken_off(kind)
    if open_one and not restart and _is_for_now(open_one):
        return open_one
    if open_one:
        MemoryRebuild.objects.filter(pk=open_one.pk).update(ended_at=timezone.now(), problem="begun anew")
    host, model = _place(kind)
    return MemoryRebuild.objects.create(kind=kind, host=host, model=model)


def preview(kind: str, *, restart: bool = False) -> tuple[int, int]:
    """How many were done before it broke off, and how many are left to do. Changes nothing."""
    open_one = _broken_off(kind)
    if open_one is None or restart or not _is_for_now(open_one):
        open_one = MemoryRebuild(kind=kind)
    return open_one.done, left(open_one)


def _broken_off(kind: str) -> MemoryRebuild | None:
    return MemoryRebuild.objects.filter(kind=kind, ended_at=None).first()


def _place(kind: str) -> tuple[str, str]:
    """The index and the model that such a rebuild is for now."""
    return (settings.PINECONE_HOST, settings.OPENAI_EMBEDDING_MODEL) if kind == Kind.PINECONE else ("", "")


def _is_for_now(rebuild: MemoryRebuild) -> bool:
    return (rebuild.host, rebuild.model) == _place(rebuild.kind)


def left(rebuild: MemoryRebuild) -> int:
    """How many sessions, or vectors, are to be done still."""
    if rebuild.kind == Kind.EMPTY_PINECONE:
        return MemoryVector.objects.count()
    return _further(rebuild.after).count()


def go_on(
    rebuild: MemoryRebuild,
    progress: Progress = lambda _done, _left: None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> MemoryRebuild:
    """The rebuild is done. What fails and may pass is tried again a few times; `progress` hears how many are done and
    left. Raises StoreError: then it stands where it broke off, and calling this again resumes it."""
    do = {Kind.DATABASE: _index_anew, Kind.PINECONE: _to_pinecone}.get(Kind(rebuild.kind))
    try:
        if do is None:
            _empty(rebuild, progress, sleep)
        else:
            for conversation_id in _ids_after(rebuild.after):
                _patiently(partial(do, conversation_id), sleep)
                rebuild.after, rebuild.done = conversation_id, rebuild.done + 1
                rebuild.save(update_fields=["after", "done"])
                if rebuild.done % AT_ONCE == 0:
                    progress(rebuild.done, left(rebuild))
    except StoreError as error:
        rebuild.problem = f"{error.code}: {error}"[:200]
        rebuild.save(update_fields=["problem"])
        raise
    rebuild.problem, rebuild.ended_at = "", timezone.now()
    rebuild.save(update_fields=["problem", "ended_at"])
    return rebuild


def _further(after: UUID | None) -> QuerySet[Memory]:
    known = Memory.objects.order_by("pk")
    return known.filter(pk__gt=after) if after else known


def _ids_after(after: UUID | None) -> Iterator[UUID]:
    """All of them, a few at a time: what is written while it runs may be among them."""
    while some := list(_further(after).values_list("pk", flat=True)[:AT_ONCE]):
        yield from some
        after = some[-1]


def _patiently(do: Callable[[], _T], sleep: Callable[[float], None]) -> _T:
    for attempt in range(1, TRIES):
        try:
            return do()
        except StoreError as error:
            if not error.retryable:
                raise
            sleep(min(max(error.retry_after or 0, 2.0**attempt), LONGEST_WAIT))
    return do()


# --- one session ------------------------------------------------------------------------------------------------------
def _index_anew(conversation_id: UUID) -> None:
    DatabaseStore().index_anew(conversation_id)


def _to_pinecone(conversation_id: UUID) -> None:
    """Its vectors are at Pinecone, as memory has it in the end: what changed meanwhile is written again."""
    for _ in range(CHANGED_AT_MOST):
        before = Memory.objects.plain().filter(pk=conversation_id).first()
        if before is None:
            return
        try:
            PineconeStore().remember(before.as_record().tidied())
        except StoreError as error:
            if error.code == "forgotten":
                return
            raise
        now = Memory.objects.plain().filter(pk=conversation_id).first()
        if now is None or now.as_record() == before.as_record():
            return
    raise StoreError("The session changes all the time.", code="busy", retryable=True)


def _empty(rebuild: MemoryRebuild, progress: Progress, sleep: Callable[[float], None]) -> None:
    while gone := _patiently(PineconeStore().empty, sleep):
        rebuild.done += gone
        rebuild.save(update_fields=["done"])
        progress(rebuild.done, left(rebuild))
