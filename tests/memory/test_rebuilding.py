"""Tests of rebuilding a store: interrupted anywhere and resumed, the result is the same."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from memory import rebuilding
from memory.models import Memory, MemoryRebuild, MemoryVector
from memory.services import StoreError, delete_orphaned_vectors, forget_texts, search
from memory.stores.database import DatabaseStore
from memory.stores.pinecone import PineconeStore
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault
from tests.memory.at_pinecone import over
from tests.memory.sessions import KETTLE, PARCEL, session

pytestmark = pytest.mark.django_db(transaction=True)
CLIENT = uuid.uuid4()
UNANSWERED = Fault(cut="after")


class Killed(BaseException):
    """Stands for a process that is killed."""


@pytest.fixture
def ended(db: Any) -> list[uuid.UUID]:
    """Return conversations that only PostgreSQL remembers."""
    records = [session(*texts, client_id=CLIENT).normalised() for texts in (KETTLE, PARCEL) * 3]
    for record in records:
        DatabaseStore().remember(record)
    return sorted(record.conversation_id for record in records)


def state(index: FakePinecone) -> Any:
    """Return the vectors at Pinecone, which our ledger has too."""
    there = index.vectors(str(CLIENT))
    known = MemoryVector.objects.exclude(upserted_at=None).order_by("vector_id")
    assert sorted(there) == list(known.values_list("vector_id", flat=True))
    return {key: (vector.values, vector.metadata) for key, vector in there.items()}


def go_on(kind: str, **more: Any) -> MemoryRebuild:
    return rebuilding.run(rebuilding.start(kind, **more), sleep=lambda _seconds: over())


@pytest.mark.parametrize("step", [0, 3, 5])
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_session_and_resumed_the_end_is_the_same(
    step: int, before: bool, ended: list[uuid.UUID], index: FakePinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on("pinecone")
    whole = state(index)
    assert len(whole) == 6
    go_on("empty")
    assert state(index) == {}
    remember = PineconeStore.remember

    def dies(store: PineconeStore, record: Any) -> None:
        last = record.conversation_id == ended[step]
        if not (last and before):
            remember(store, record)
        if last:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PineconeStore, "remember", dies)
        with pytest.raises(Killed):
            go_on("pinecone")
    sent = len(index.calls("/vectors/upsert"))
    done = go_on("pinecone")
    assert (done.done, state(index)) == (6, whole)
    assert len(index.calls("/vectors/upsert")) - sent == 6 - step - (not before), "what is there is not sent again"


def test_a_provider_that_fails_is_tried_again_and_then_it_goes_on_where_it_broke_off(
    ended: list[uuid.UUID], index: FakePinecone
) -> None:
    index.fail_next(UNANSWERED)
    assert go_on("pinecone").done == 6
    go_on("empty")

    rebuild = rebuilding.start("pinecone")
    remember = PineconeStore.remember
    with pytest.MonkeyPatch.context() as patch:

        def away(store: PineconeStore, record: Any) -> None:
            if record.conversation_id == ended[3]:
                raise StoreError("away", code="unreachable", retryable=True)
            remember(store, record)

        patch.setattr(PineconeStore, "remember", away)
        with pytest.raises(StoreError):
            rebuilding.run(rebuild, sleep=lambda _seconds: None)
    resumed = rebuilding.start("pinecone")
    assert (resumed.pk, resumed.done, resumed.after) == (rebuild.pk, 3, ended[2])
    assert rebuilding.preview("pinecone") == (3, 3)
    assert rebuilding.preview("pinecone", restart=True) == (0, 6)
    assert resumed.problem.startswith("unreachable")
    assert rebuilding.run(resumed).done == 6
    assert len(state(index)) == 6


def test_another_index_or_model_is_another_rebuild_and_leaves_nothing_in_the_old(
    ended: list[uuid.UUID], index: FakePinecone, settings: Any
) -> None:
    go_on("pinecone")
    with FakePinecone(api_key=index.api_key) as other:
        settings.PINECONE_HOST = other.url
        go_on("pinecone")
        assert index.vectors(str(CLIENT)) == {}
        assert len(state(other)) == 6


def test_the_index_of_words_is_written_anew(ended: list[uuid.UUID]) -> None:
    Memory.objects.update(document="'nothing'")
    assert search(CLIENT, "kettle").items == ()
    before = list(Memory.objects.order_by("pk").values("transcript", "summary", "remembered_at"))
    assert go_on("database").done == 6
    assert len(search(CLIENT, "kettle").items) == 3
    assert list(Memory.objects.order_by("pk").values("transcript", "summary", "remembered_at")) == before


def test_vectors_of_texts_that_are_gone_are_cleared(ended: list[uuid.UUID], index: FakePinecone) -> None:
    go_on("pinecone")
    assert forget_texts(CLIENT, ended[:4]) == 4
    assert delete_orphaned_vectors() == 4
    assert len(state(index)) == 2
    assert delete_orphaned_vectors() == 0


def test_the_command_says_how_far_it_is_and_what_is_missing(ended: list[uuid.UUID], index: FakePinecone) -> None:
    out = io.StringIO()
    call_command("rebuild_memory", "pinecone", stdout=out)
    assert out.getvalue() == "pinecone: 6 sessions written.\n"
    out = io.StringIO()
    call_command("rebuild_memory", "pinecone", "--empty", "--dry-run", stdout=out)
    assert out.getvalue() == "pinecone: 6 vectors would be deleted.\nDry run: nothing was changed.\n"
    assert len(state(index)) == 6
    out = io.StringIO()
    call_command("rebuild_memory", "pinecone", "--empty", stdout=out, stderr=io.StringIO())
    assert out.getvalue() == "pinecone: 6 vectors deleted.\n"
    assert index.vectors(str(CLIENT)) == {}
    with pytest.raises(CommandError, match="--empty works with pinecone only"):
        call_command("rebuild_memory", "database", "--empty")


def test_without_pinecone_there_is_nothing_to_write_to(ended: list[uuid.UUID]) -> None:
    with pytest.raises(CommandError, match=r"not_configured\) Set them"):
        call_command("rebuild_memory", "pinecone")
    assert not MemoryRebuild.objects.exists()
