"""Remembering and forgetting, interrupted at every step and repeated: the result is the same, without duplicates."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from memory import event_loop
from memory.models import Memory, MemoryVector
from memory.records import ConversationRecord
from memory.services import StoreError, forget, remember
from tests.bounds import rounds
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault
from tests.memory import process
from tests.memory.at_pinecone import over
from tests.memory.sessions import KETTLE, session

pytestmark = pytest.mark.django_db(transaction=True)

LONG = ("Tell me about kettles. " * 30, "Gladly. " * 100) * 40  # more passages than one batch takes


class Killed(BaseException):
    """Stands for a process that is killed."""


@contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """Kill the block at its `step`-th step (from 0), and yield the steps that were reached.

    The steps are each statement for PostgreSQL, and each network request twice: before it is sent and after its answer.
    """
    reached: list[str] = []
    wait = event_loop.run

    def next_step(name: str) -> None:
        reached.append(name)
        if len(reached) == step + 1:
            raise Killed(name)

    def on_statement(execute: Any, sql: str, *rest: Any) -> Any:
        next_step(sql[:60])
        return execute(sql, *rest)

    def on_network(call: Any, seconds: float) -> Any:
        try:
            next_step("ask the network")
        except Killed:
            call.close()
            raise
        result = wait(call, seconds)
        next_step("answered by the network")
        return result

    event_loop.run = on_network  # type: ignore[assignment]
    try:
        with connection.execute_wrapper(on_statement):
            yield reached
    finally:
        event_loop.run = wait


def state(record: ConversationRecord, index: FakePinecone | None = None) -> Any:
    """Return everything that is stored of the conversation, except the times of writing."""
    rows = Memory.objects.filter(pk=record.conversation_id)
    memory = list(rows.values("summary", "summary_kind", "transcript", "document", "language", "contact_id"))
    known = list(
        MemoryVector.objects.filter(conversation_id=record.conversation_id, upserted_at__isnull=False)
        .order_by("part")
        .values_list("vector_id", "part", "first_position", "last_position", "digest", "namespace")
    )
    there = index.vectors(str(record.client_id)) if index else {}
    assert sorted(there) == sorted(row[0] for row in known)
    assert [row for row in rows if not row.remembered_at] == []
    return memory, known, there


def wiped(index: FakePinecone) -> None:
    for table in (Memory, MemoryVector):
        table.objects.all().delete()
    index.namespaces.clear()


def at_every_step(work: Callable[[], Any], check: Callable[[list[str]], None]) -> int:
    """Kill `work` at its first step, its second, and so on until it completes, and return the number of attempts.

    `check` is called after each.
    """
    for step in range(200):
        with killed_at(step) as reached:
            try:
                work()
            except Killed:
                pass
            else:
                return step
        check(reached)
    raise AssertionError("It has no end.")


def test_remembering_may_be_cut_off_at_any_step(index: FakePinecone, model: FakeOpenAI) -> None:
    record = session(*KETTLE, goal="Help")
    remember(record)
    expected = state(record, index)
    asked_network = 0

    def check(reached: list[str]) -> None:
        nonlocal asked_network
        asked_network += "network" in reached[-1]
        remember(record)
        assert state(record, index) == expected, reached[-1]
        wiped(index)

    wiped(index)
    steps = at_every_step(lambda: remember(record), check)
    assert steps >= 20
    assert asked_network == 6  # before and after each of summary, embeddings and upsert


def test_remembering_in_batches_may_be_cut_off_between_them(index: FakePinecone, model: FakeOpenAI) -> None:
    record = session(*LONG)
    remember(record)
    expected = state(record, index)
    model.requests.clear()
    wiped(index)
    at_every_step(lambda: remember(record), lambda _reached: None)  # each time from where the last one was cut off
    assert state(record, index) == expected
    # What was there already was not embedded again, except for the batch that was cut off.
    assert len([request for request in model.requests if request.path.endswith("/embeddings")]) <= 25


def test_forgetting_may_be_cut_off_at_any_step(index: FakePinecone) -> None:
    record, other = session(*KETTLE), session(*KETTLE)
    for one in (record, other):
        remember(one)
    kept = state(other, index)

    def check(reached: list[str]) -> None:
        forget(record.client_id, record.conversation_id)
        assert not Memory.objects.filter(pk=record.conversation_id).exists()
        assert not MemoryVector.objects.filter(conversation_id=record.conversation_id).exists()
        assert index.vectors(str(record.client_id)) == {}
        remember(record)

    assert at_every_step(lambda: forget(record.client_id, record.conversation_id), check) >= 4
    assert state(other, index) == kept


def test_forgetting_what_was_cut_off_while_it_was_remembered_leaves_nothing(index: FakePinecone) -> None:
    record = session(*KETTLE)

    def check(_reached: list[str]) -> None:
        over()
        forget(record.client_id, record.conversation_id)
        assert not Memory.objects.exists()
        assert not MemoryVector.objects.exists()
        assert index.vectors(str(record.client_id)) == {}

    assert at_every_step(lambda: remember(record), check) >= 20


# --- a process that is killed ----------------------------------------------------------------------------------------
def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen."
        time.sleep(0.02)


@pytest.mark.parametrize("held", ["summary", "embeddings", "upsert", "upsert applied"])
def test_a_process_may_be_killed_while_somebody_holds_its_request(
    index: FakePinecone, model: FakeOpenAI, settings: Any, held: str
) -> None:
    record = session(*KETTLE, goal="Help")
    remember(record)
    expected = state(record, index)
    wiped(index)
    model.requests.clear()
    index.requests.clear()

    if held == "embeddings":
        model.then("reply", text=expected[0][0]["summary"])
    if held in {"summary", "embeddings"}:
        model.then("hang")
    else:
        index.hold_next(applied=held == "upsert applied")
    killed = process.start("remember", record, settings=settings)
    try:
        until(lambda: len(model.requests) == 1 + (held != "summary") and (len(index.requests) or "upsert" not in held))
        if held == "upsert applied":
            until(lambda: index.vectors(str(record.client_id)))
    finally:
        killed.kill()
        killed.join(10)

    assert Memory.objects.get().remembered_at is None
    known = MemoryVector.objects.count()
    assert known == (2 if held.startswith("upsert") else 0)
    assert len(index.vectors(str(record.client_id))) == (2 if held == "upsert applied" else 0)
    remember(record)
    assert state(record, index) == expected


def test_what_a_killed_process_may_still_be_writing_is_not_forgotten_too_early(
    index: FakePinecone, settings: Any
) -> None:
    record = session(*KETTLE)
    index.hold_next(applied=True)
    killed = process.start("remember", record, settings=settings)
    try:
        until(lambda: index.requests)
    finally:
        killed.kill()
        killed.join(10)
    with pytest.raises(StoreError) as caught:
        forget(record.client_id, record.conversation_id)
    assert (caught.value.code, caught.value.retryable) == ("busy", True)
    assert not Memory.objects.exists()  # the text is gone at once
    over()
    forget(record.client_id, record.conversation_id)
    assert index.vectors(str(record.client_id)) == {}
    assert not MemoryVector.objects.exists()


def test_a_process_may_be_killed_while_it_forgets(index: FakePinecone, settings: Any) -> None:
    record = session(*KETTLE)
    remember(record)
    sent = len(index.requests)
    index.hold_next()
    killed = process.start("forget", record.client_id, record.conversation_id, settings=settings)
    try:
        until(lambda: len(index.requests) > sent)
    finally:
        killed.kill()
        killed.join(10)
    assert MemoryVector.objects.count() == 2
    forget(record.client_id, record.conversation_id)
    assert index.vectors(str(record.client_id)) == {}
    assert not MemoryVector.objects.exists()


def test_two_processes_that_remember_the_same_session_end_the_same(
    index: FakePinecone, model: FakeOpenAI, settings: Any
) -> None:
    record = session(*KETTLE, goal="Help")
    remember(record)
    expected = state(record, index)
    wiped(index)
    model.delay = 0.3
    running = [process.start("remember", record, settings=settings) for _ in range(3)]
    for one in running:
        one.join(60)
    assert [one.exitcode for one in running] == [0, 0, 0]
    assert state(record, index) == expected


def test_no_connection_holds_a_transaction_while_the_network_is_waited_for(
    index: FakePinecone, model: FakeOpenAI, settings: Any
) -> None:
    index.fail_next(Fault(hang=2.0))
    model.delay = 0.5
    seen: set[str] = set()
    running = process.start("remember", session(*KETTLE), settings=settings)
    with connection.cursor() as cursor:
        for _ in rounds("Remembering", lambda: f"process {running.pid}", most=3_000):
            if not running.is_alive():
                break
            cursor.execute(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name = 'convo' AND now() - state_change > interval '200 ms'"
            )
            seen |= {name for (name,) in cursor.fetchall()}
            time.sleep(0.02)
    running.join()
    assert running.exitcode == 0
    assert seen == {"idle"}


def test_a_stranger_s_session_is_not_touched(index: FakePinecone) -> None:
    forget(uuid.uuid4(), uuid.uuid4())
    assert index.requests == []
