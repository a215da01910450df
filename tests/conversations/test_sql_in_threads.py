"""Statements for many values at once, rows and names that somebody else holds, and connections that go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DataError, InterfaceError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from conversations.models import Client, Step
from conversations.services.core import sql
from conversations.services.core.sql import column, exclusively, insert, row, rows_of_each, unlocked, update, with_retry
from tests import factories
from tests.races.threads import Lane, eventually

pytestmark = pytest.mark.django_db(transaction=True)

SUM = "SELECT n + $2::int FROM generate_series(1, $1::int) n"


@pytest.fixture
def lane() -> Iterator[Lane]:
    """A thread with a connection of its own."""
    found = Lane()
    yield found
    found.close()


def elsewhere(lane: Lane, work: Any) -> Any:
    """Return what the work returns in the other thread."""
    found: list[Any] = []
    lane.begin(lambda: found.append(work()))
    assert lane.ended(30), "it waits"
    return found[0]


# --- many at once -----------------------------------------------------------------------------------------------------
def test_each_of_many_has_its_own_rows_in_their_order():
    with transaction.atomic():
        assert rows_of_each(SUM, [(2, 10), (0, 0), (1, 20)]) == [[(11,), (12,)], [], [(21,)]]
        assert rows_of_each(SUM, []) == []
        assert row(SUM, 1, 1) == (2,), "the connection is as it was"


def test_many_are_one_entry_in_the_log_of_queries():
    with transaction.atomic(), CaptureQueriesContext(connection) as seen:
        rows_of_each(SUM, [(1, 1), (2, 2)])
    assert [query["sql"] for query in seen if "generate_series" in query["sql"]] == [SUM]


def test_an_error_of_one_of_many_undoes_all_and_leaves_the_connection_usable():
    name = "INSERT INTO clients (id, name, sub_domain) VALUES (gen_random_uuid(), $1, 10 / $2::int) RETURNING name"
    with pytest.raises(DataError), transaction.atomic():
        rows_of_each(name, [("one", 1), ("two", 0), ("three", 2)])
    assert not Client.objects.exists()
    with transaction.atomic():
        assert rows_of_each(name, [("one", 1), ("two", 2)]) == [[("one",)], [("two",)]]
    assert Client.objects.count() == 2


def test_after_an_error_many_are_refused_until_the_transaction_ends():
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            rows_of_each(SUM, [(1, 1)])
    with transaction.atomic():
        assert rows_of_each(SUM, [(1, 1)]) == [[(2,)]]


def test_what_the_server_was_made_to_forget_ends_many_as_if_the_database_had_gone_away():
    with transaction.atomic():
        rows_of_each(SUM, [(1, 1)])
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    with pytest.raises(OperationalError), transaction.atomic():
        rows_of_each(SUM, [(1, 1), (2, 2)])
    with transaction.atomic():
        assert rows_of_each(SUM, [(1, 1)]) == [[(2,)]]


def test_a_connection_that_is_lost_among_many_is_an_operational_error():
    end = "SELECT CASE WHEN $1 THEN pg_terminate_backend(pg_backend_pid()) ELSE false END"
    with pytest.raises((OperationalError, InterfaceError)), transaction.atomic():
        rows_of_each(end, [(False,), (True,), (False,)])
    connection.close_if_unusable_or_obsolete()
    connection.close()
    assert row("SELECT $1::int", 1) == (1,)


def test_behind_a_pooler_many_are_sent_one_by_one_and_nothing_is_prepared():
    connection.ensure_connection()
    raw: Any = connection.connection
    usual, raw.prepare_threshold = raw.prepare_threshold, None
    try:
        with transaction.atomic():
            assert rows_of_each("SELECT $1::int + 77", [(1,), (2,)]) == [[(78,)], [(79,)]]
        assert not any("+ 77" in each for each in column("SELECT statement FROM pg_prepared_statements"))
    finally:
        raw.prepare_threshold = usual


# --- rows -------------------------------------------------------------------------------------------------------------
def test_rows_that_somebody_holds_are_left_out_of_a_change(lane):
    held, free = factories.ClientFactory(), factories.ClientFactory()

    def rename() -> int:
        with transaction.atomic():
            found = Client.objects.filter(pk__in=[held.pk, free.pk]).order_by("-name")
            return int(unlocked(found).update(name="Renamed"))

    with transaction.atomic():
        Client.objects.select_for_update().get(pk=held.pk)
        assert elsewhere(lane, rename) == 1
    assert Client.objects.get(name="Renamed") == free


def test_one_row_is_updated_and_its_neighbours_are_not():
    one, other = factories.StepFactory(), factories.StepFactory()
    one.description = "Changed"
    assert update(one, ["description"])
    other.refresh_from_db()
    assert other.description != "Changed"


def test_what_the_database_gives_is_set_on_each_record_that_is_inserted():
    conversation = factories.ConversationFactory()
    steps = [Step(conversation=conversation, description=text) for text in ("a", "b")]
    insert(steps)
    written = {step.pk: step.description for step in Step.objects.all()}
    assert {step.pk: step.description for step in steps} == written
    assert [step._state.adding for step in steps] == [False, False]
    assert {step._state.db for step in steps} == {"default"}
    insert([])


# --- names ------------------------------------------------------------------------------------------------------------
def test_a_name_is_one_process_s_until_its_block_ends(lane):
    def is_free(name: str = "test.name") -> bool:
        with exclusively(name) as ours:
            return ours

    with exclusively("test.name") as ours:
        assert ours
        assert [elsewhere(lane, is_free), elsewhere(lane, is_free)] == [False, False]
        assert elsewhere(lane, lambda: is_free("test.other"))
    assert elsewhere(lane, is_free)
    with pytest.raises(ZeroDivisionError), exclusively("test.name"):
        raise ZeroDivisionError
    assert elsewhere(lane, is_free)


# --- connections ------------------------------------------------------------------------------------------------------
def backend() -> int:
    [pid] = column("SELECT pg_backend_pid()")
    return int(pid)


def is_gone(pid: int) -> bool:
    return not column("SELECT pid FROM pg_stat_activity WHERE pid = $1", pid)


def test_a_connection_is_released_but_not_within_a_transaction(lane):
    before = backend()
    with transaction.atomic():
        sql.release_connection()
        assert backend() == before
    sql.release_connection()
    assert connection.connection is None
    elsewhere(lane, lambda: eventually(lambda: is_gone(before), "the server has closed it") or True)


def test_work_on_rows_is_repeated_while_the_database_is_away():
    faults: list[Exception] = [OperationalError("gone"), InterfaceError("closed")]

    def work(given: str) -> str:
        if faults:
            raise faults.pop()
        return f"{given} {row('SELECT $1::text', 'done')}"

    assert with_retry(work, "all") == "all ('done',)"


@pytest.mark.parametrize("fault", [OperationalError("gone"), InterfaceError("closed")])
def test_after_a_while_work_on_rows_is_given_up(monkeypatch, fault):
    monkeypatch.setattr(sql, "DATABASE_AWAY_SECONDS", -1.0)
    tried: list[bool] = []

    def work() -> None:
        tried.append(True)
        raise fault

    with pytest.raises(type(fault)):
        with_retry(work)
    assert tried == [True]


def test_another_error_of_work_on_rows_is_not_repeated():
    tried: list[bool] = []

    def work() -> None:
        tried.append(True)
        raise DataError("no")

    with pytest.raises(DataError):
        with_retry(work)
    assert tried == [True]


def test_the_connections_of_all_threads_of_a_pool_are_closed(lane):
    with ThreadPoolExecutor(3) as pool:
        open_: set[int] = set()
        while len(open_) < 3:
            open_ |= set(pool.map(lambda _: backend(), range(30)))
        ours = backend()
        sql.close_connections(pool, 3, 30)
        assert connection.connection is None
        for pid in (*open_, ours):
            elsewhere(lane, lambda pid=pid: eventually(lambda: is_gone(pid), "the server has closed it") or True)
