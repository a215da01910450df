"""Memory at Pinecone, over real HTTP to fakes of the index and of the model."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from memory.models import Memory, MemoryVector
from memory.stores import pinecone
from memory.stores.contract import Store, StoreError
from memory.stores.passages import LONGEST, passages
from memory.stores.pinecone import BATCH, PineconeStore
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault
from tests.memory.at_pinecone import LONG, failure, keep, ledger, over, there
from tests.memory.conftest import PINECONE_KEY
from tests.memory.sessions import KETTLE, PARCEL, session
from tests.memory.store_contract import StoreContract

pytestmark = pytest.mark.django_db


class TestPineconeStore(StoreContract):
    @pytest.fixture
    def store(self, index: FakePinecone, settings: Any) -> Store:
        settings.MEMORY_LEAST_SIMILARITY = 1  # the fake model's vectors are near to each other for few shared words
        return PineconeStore()


# --- what is sent ----------------------------------------------------------------------------------------------------
def test_each_passage_is_a_vector_with_our_id_in_the_client_s_namespace(index: FakePinecone) -> None:
    record = keep(session(*KETTLE, summary="A refund was agreed.", summary_kind="llm"))
    assert there(index, record) == ledger(record) == [f"{record.conversation_id}:0", f"{record.conversation_id}:1"]
    assert list(index.namespaces) == [str(record.client_id)]
    row = MemoryVector.objects.get(part=1)
    assert (row.first_position, row.last_position, row.model) == (3, 5, "text-embedding-3-small")
    assert row.upserting_until is None


def test_no_text_goes_to_pinecone(index: FakePinecone) -> None:
    record = keep(session(*KETTLE, goal="Sell kettles", summary="A refund was agreed.", summary_kind="llm"))
    PineconeStore().search(record.client_id, "broken kettle", 5)
    sent = b"".join(request.body for request in index.requests).decode()
    assert [word for word in ("kettle", "refund", "you are ada") if word in sent.lower()] == []
    assert index.vectors(str(record.client_id))[f"{record.conversation_id}:1"].metadata == {
        "conversation_id": str(record.conversation_id),
        "contact_id": str(record.contact_id),
        "channel": "whatsapp",
        "ended_at": int(record.ended_at.timestamp()),
        "position": 3,
    }


def test_an_ordinary_session_takes_one_call_to_each(index: FakePinecone, model: FakeOpenAI) -> None:
    keep(session(*KETTLE * 15, summary="A refund was agreed.", summary_kind="llm"))
    assert [request.path for request in model.requests] == ["/v1/embeddings"]
    assert [request.path for request in index.requests] == ["/vectors/upsert"]


def test_a_long_session_is_sent_in_batches(index: FakePinecone, model: FakeOpenAI) -> None:
    record = keep(session(*LONG))
    count = len(passages(record))
    assert count > BATCH
    assert len(there(index, record)) == len(ledger(record)) == count
    assert len(model.requests) == len(index.requests) == -(-count // BATCH)
    assert max(len(text) for request in model.requests for text in request.body["input"]) <= LONGEST


def test_wide_vectors_are_sent_in_requests_that_pinecone_takes(index: FakePinecone, settings: Any) -> None:
    settings.OPENAI_EMBEDDING_DIMENSIONS = 3_072
    record = keep(session(*LONG[:60]))
    assert len(there(index, record)) == len(passages(record))
    assert max(len(request.body) for request in index.requests) <= 2 * 1024 * 1024


def test_what_is_there_is_not_sent_again(index: FakePinecone, model: FakeOpenAI) -> None:
    record = keep(session(*LONG))
    sent = len(index.requests), len(model.requests)
    keep(record)
    assert (len(index.requests), len(model.requests)) == sent


def test_only_what_changed_is_sent_again(index: FakePinecone, model: FakeOpenAI) -> None:
    record = keep(session(*LONG, summary="One.", summary_kind="llm"))
    before = len(model.requests)
    keep(replace(record, summary="Two."))
    assert [request.body["input"] for request in model.requests[before:]] == [["Two."]]


def test_a_merged_contact_is_known_at_pinecone_too(index: FakePinecone) -> None:
    record = keep(session(*KETTLE))
    merged = keep(replace(record, contact_id=uuid.uuid4()))
    [vector] = index.vectors(str(record.client_id)).values()
    assert vector.metadata["contact_id"] == str(merged.contact_id)


def test_what_is_no_longer_part_of_the_session_is_deleted(index: FakePinecone) -> None:
    record = keep(session(*LONG))
    shorter = keep(replace(record, entries=record.entries[:5]))
    assert there(index, record) == ledger(record)
    assert len(ledger(record)) == len(passages(shorter)) < len(passages(record))


def test_another_index_has_everything_and_the_old_one_nothing(index: FakePinecone, settings: Any) -> None:
    record = keep(session(*KETTLE))
    with FakePinecone(api_key=PINECONE_KEY) as other:
        settings.PINECONE_HOST = other.url
        keep(record)
        assert there(other, record) == ledger(record) == [f"{record.conversation_id}:1"]
        assert there(index, record) == []
        PineconeStore().forget(record.client_id, record.conversation_id)
        assert there(other, record) == []


# --- the ledger ------------------------------------------------------------------------------------------------------
def test_the_ledger_knows_every_vector_before_pinecone_does(
    index: FakePinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[list[str]] = []
    call = pinecone.call

    def looking(*arguments: Any) -> Any:
        noted.append(list(MemoryVector.objects.values_list("vector_id", flat=True)))
        assert not there(index, record)
        return call(*arguments)

    monkeypatch.setattr(pinecone, "call", looking)
    record = session(*KETTLE)
    keep(record)
    assert noted == [[f"{record.conversation_id}:1"]]


def test_a_vector_that_the_ledger_does_not_know_is_not_found(index: FakePinecone) -> None:
    record = keep(session(*KETTLE))
    stranger = keep(session(*KETTLE))
    vectors = index.namespaces[str(record.client_id)]
    vectors |= index.namespaces[str(stranger.client_id)]  # somebody's mistake at Pinecone
    vectors["nobody:1"] = next(iter(vectors.values()))
    hits = PineconeStore().search(record.client_id, "broken kettle", 10)
    assert [hit.conversation_id for hit in hits] == [record.conversation_id]


def test_forgetting_deletes_by_the_ids_of_the_ledger(index: FakePinecone) -> None:
    record = keep(session(*LONG))
    ids = ledger(record)
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert there(index, record) == ledger(record) == []
    [delete] = index.calls("/vectors/delete")
    assert sorted(delete.json()["ids"]) == ids
    assert set(delete.json()) == {"ids", "namespace"}


def test_forgetting_that_fails_is_finished_the_next_time(index: FakePinecone) -> None:
    record = keep(session(*KETTLE))
    index.fail_next(Fault(status=403))
    with pytest.raises(StoreError) as caught:
        PineconeStore().forget(record.client_id, record.conversation_id)
    assert caught.value.code == "unauthorized"
    assert ledger(record)
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert there(index, record) == ledger(record) == []


@pytest.mark.parametrize("applied", [False, True])
def test_a_lost_answer_to_a_delete_is_no_matter(index: FakePinecone, applied: bool) -> None:
    record = keep(session(*KETTLE))
    index.fail_next(Fault(cut="after" if applied else "before"), times=4)
    with pytest.raises(StoreError) as caught:
        PineconeStore().forget(record.client_id, record.conversation_id)
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert there(index, record) == ledger(record) == []


def test_forgetting_waits_for_an_upsert_that_may_still_arrive(index: FakePinecone, settings: Any) -> None:
    settings.PINECONE_TIMEOUT_SECONDS = 0.3
    index.hold_next(applied=True)
    record = session(*KETTLE)
    assert failure(record).code == "timeout"
    Memory.objects.all().delete()
    with pytest.raises(StoreError) as caught:
        PineconeStore().forget(record.client_id, record.conversation_id)
    assert (caught.value.code, caught.value.retryable) == ("busy", True)
    assert 0 < (caught.value.retry_after or 0) <= 61
    settings.PINECONE_TIMEOUT_SECONDS = 20
    over()
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert there(index, record) == []
    assert not MemoryVector.objects.exists()


def test_what_may_still_arrive_is_not_overtaken_by_a_correction(index: FakePinecone, settings: Any) -> None:
    settings.PINECONE_TIMEOUT_SECONDS = 0.3
    index.hold_next()
    record = session("My secret word is rhododendron", "Thank you.")
    assert failure(record).code == "timeout"
    settings.PINECONE_TIMEOUT_SECONDS = 20
    corrected = replace(record, entries=record.entries[:2] + record.entries[3:])
    error = failure(corrected)
    assert (error.code, error.retryable) == ("busy", True)
    assert there(index, record) == []
    over()
    keep(corrected)
    assert there(index, record) == ledger(record)


def test_nothing_is_sent_of_a_session_that_was_forgotten_meanwhile(index: FakePinecone) -> None:
    record = session(*KETTLE)
    with pytest.raises(StoreError) as caught:
        PineconeStore().remember(record)
    assert (caught.value.code, caught.value.retryable) == ("forgotten", False)
    assert index.requests == []
    assert not MemoryVector.objects.exists()


def test_a_namespace_that_never_was_is_as_good_as_empty(index: FakePinecone) -> None:
    index.fail_next(Fault(status=403))
    record = session(*KETTLE)
    assert failure(record).code == "unauthorized"
    over()
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert not MemoryVector.objects.exists()


def test_an_address_that_is_no_index_is_not_taken_for_an_empty_one(index: FakePinecone) -> None:
    record = keep(session(*KETTLE))
    index.fail_next(Fault(status=404, content=b"<html>Not here</html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(StoreError) as caught:
        PineconeStore().forget(record.client_id, record.conversation_id)
    assert (caught.value.code, caught.value.retryable) == ("not_found", False)
    assert ledger(record)


def test_forgetting_takes_no_model_and_no_index_but_the_one_in_the_ledger(index: FakePinecone, settings: Any) -> None:
    record = keep(session(*KETTLE))
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = settings.PINECONE_HOST = ""
    PineconeStore().forget(record.client_id, record.conversation_id)
    assert there(index, record) == ledger(record) == []


def test_vectors_are_not_forgotten_without_a_key(index: FakePinecone, settings: Any) -> None:
    record = keep(session(*KETTLE))
    settings.PINECONE_API_KEY = ""
    with pytest.raises(StoreError) as caught:
        PineconeStore().forget(record.client_id, record.conversation_id)
    assert (caught.value.code, caught.value.retryable) == ("not_configured", False)
    assert ledger(record)


# --- searching -------------------------------------------------------------------------------------------------------
def test_other_words_of_the_same_meaning_are_found(index: FakePinecone) -> None:
    kettle = keep(session(*KETTLE))
    keep(session(*PARCEL, client_id=kettle.client_id))
    [hit] = PineconeStore().search(kettle.client_id, "boiler reimbursement", 10)
    assert hit.conversation_id == kettle.conversation_id
    assert (hit.first_position, hit.last_position) == (3, 5)


def test_what_is_too_far_off_is_not_found(index: FakePinecone, settings: Any) -> None:
    record = keep(session(*KETTLE))
    assert PineconeStore().search(record.client_id, "kettle", 10)
    settings.MEMORY_LEAST_SIMILARITY = 90
    assert PineconeStore().search(record.client_id, "kettle", 10) == []
