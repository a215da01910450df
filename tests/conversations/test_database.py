"""Statements with $1, $2 …, prepared once a connection, on a connection that commits by itself."""

from __future__ import annotations

import socket
import threading
import uuid
from datetime import UTC, datetime
from weakref import WeakSet

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError

from conversations.models import Client
from conversations.services.core.sql import column, row, rows
from convo_project import resident
from convo_project.postgresql import failures, limits
from convo_project.processes import wait_for
from tests import databases

pytestmark = pytest.mark.django_db(transaction=True)


def prepared() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements WHERE name LIKE 'convo%' ORDER BY prepare_time")
        return [statement for (statement,) in cursor.fetchall()]


def test_values_and_rows_keep_their_types():
    at, key = datetime(2026, 1, 2, 3, 4, 5, 6, UTC), uuid.uuid4()
    values = ("a", 7, True, None, at, key, b"\0\xff", ["x", None], 1.5)
    statement = (
        "SELECT $1::text, $2::int, $3::boolean, $4::text, $5::timestamptz, $6::uuid, $7::bytea, $8::text[], $9::float"
    )
    assert row(statement, *values) == values


# A fraction of any length, and a year in which zones differed from UTC by seconds.
MOMENTS = [
    "2026-12-01 18:00:00+00",
    "2026-12-01 18:00:00.5+00",
    "2026-12-01 18:00:00.000001+00",
    "1883-01-01 00:00:00+00",
]
ENDS = ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"]
ZONES = ["UTC", "Asia/Kathmandu", "America/New_York", "Europe/Amsterdam"]


@pytest.mark.parametrize(
    ("written", "zone"), [*((each, zone) for each in MOMENTS for zone in ZONES), *((each, "UTC") for each in ENDS)]
)
def test_a_moment_is_read_as_psycopg_reads_it_whatever_the_zone_of_the_session(written, zone):
    with transaction.atomic():
        rows("SELECT set_config('timezone', $1, true)", zone)
        [read] = column("SELECT $1::text::timestamptz", written)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::timestamptz", [written])
            assert cursor.fetchone() == (read,)
    assert read == datetime.fromisoformat(written)
    assert read.tzinfo is UTC


@pytest.mark.parametrize("written", ["infinity", "-infinity", "10000-01-01 00:00:00+00", "12345-06-07 08:09:10+00"])
def test_a_moment_that_python_does_not_know_is_an_error(written):
    with pytest.raises(DataError):
        column("SELECT $1::text::timestamptz", written)
    with pytest.raises(DataError):
        column("SELECT ($1::text::timestamptz - '12000 years'::interval)", "0044-03-15 00:00:00+00")


def test_a_statement_is_prepared_at_its_first_use_and_once_for_values_of_the_same_types():
    statement = "SELECT $1::text || ' of test_database'"
    assert [row(statement, word) for word in ("one", "two", None)] == [
        ("one of test_database",),
        ("two of test_database",),
        (None,),
    ]
    assert 1 <= prepared().count(statement) <= 2  # NULL has no type of its own


def test_a_new_connection_prepares_anew():
    statement = "SELECT 1 WHERE $1"
    assert row(statement, True)
    connection.close()
    assert row(statement, True)
    assert statement in prepared()


def test_no_row_is_none_and_a_column_is_a_list():
    assert row("SELECT 1 WHERE $1", False) is None
    assert column("SELECT n FROM generate_series(1, $1::int) n", 3) == [1, 2, 3]


def test_errors_are_djangos_and_leave_the_connection_as_it_was():
    insert = "INSERT INTO clients (id, name, sub_domain) VALUES ($1, 'Shop', 'shop') RETURNING id"
    rows(insert, uuid.uuid4())
    with pytest.raises(IntegrityError):
        rows(insert, uuid.uuid4())
    with pytest.raises(DataError):
        rows("SELECT 1 / $1::int", 0)
    assert column("SELECT count(*) FROM clients WHERE sub_domain = $1", "shop") == [1]


def test_in_a_transaction_it_is_part_of_it():
    with transaction.atomic():
        rows("INSERT INTO clients (id, name, sub_domain) VALUES ($1, 'Shop', 'shop') RETURNING id", uuid.uuid4())
        transaction.set_rollback(True)
    assert not Client.objects.exists()


def test_a_connection_that_the_server_ends_is_an_operational_error_and_is_replaced():
    rows("SELECT $1::int", 1)
    with pytest.raises(OperationalError):
        rows("SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1", True)
    connection.close_if_unusable_or_obsolete()
    assert row("SELECT $1::int", 1) == (1,)


def test_a_statement_that_the_server_was_made_to_forget_is_prepared_again():
    """psycopg has the server forget all that is prepared after a rollback to a savepoint, and not only its own."""
    statement = "SELECT $1::int + 1"
    assert row(statement, 1) == (2,)
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    assert row(statement, 2) == (3,)
    assert row(statement, 3) == (4,)


def test_the_end_of_a_session_or_person_is_looked_up_nowhere_from_end_to_end() -> None:
    """A foreign key without an index would be checked so, for every row that a purge or an erasure deletes."""
    deleted = "{contacts,contact_identities,conversations,conversation_chunks,conversation_messages,conversation_turns}"
    unindexed = rows(
        """
        SELECT conrelid::regclass || '.' || attname FROM pg_constraint
        JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE contype = 'f' AND confrelid::regclass::text = ANY ($1::text[]) AND NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid = conrelid AND indkey[0] = conkey[1]
                AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) = format('(%I IS NOT NULL)', attname)))
        """,
        deleted,
    )
    assert unindexed == []


def test_in_a_transaction_what_the_server_was_made_to_forget_ends_it_as_if_the_database_had_gone_away():
    statement = "SELECT $1::int + 2"
    assert row(statement, 1) == (3,)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
        with pytest.raises(OperationalError):
            row(statement, 1)
    with transaction.atomic():
        assert row(statement, 1) == (3,), "whoever tries again succeeds"


def test_after_an_error_in_a_transaction_nothing_more_is_done_in_it():
    with transaction.atomic():
        with pytest.raises(DataError), transaction.atomic():
            rows("SELECT 1 / $1::int", 0)
        assert row("SELECT $1::int", 1) == (1,), "the savepoint took it back"
    with transaction.atomic():
        with pytest.raises(DataError), transaction.atomic(savepoint=False):
            rows("SELECT 1 / $1::int", 0)
        with pytest.raises(TransactionManagementError):
            rows("SELECT $1::int", 1)


def test_behind_a_pooler_nothing_is_prepared():
    statement = "SELECT $1::int + 3"
    connection.ensure_connection()
    connection.connection.prepare_threshold = None
    try:
        for _ in range(10):
            assert row(statement, 1) == (4,)
        with transaction.atomic():
            rows("INSERT INTO clients (id, name, sub_domain) VALUES ($1, 'Shop', 'shop') RETURNING id", uuid.uuid4())
            transaction.set_rollback(True)
        assert not Client.objects.exists()
        assert statement not in prepared()
    finally:
        connection.close()


def test_why_a_call_failed_is_logged_without_its_values(caplog):
    failures._noted.clear()  # another test may have failed alike a moment ago
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 1")
    with pytest.raises(OperationalError):
        row("SELECT pg_sleep(60), $1::text", "+51999999999")
    connection.close()
    assert "class=QueryCanceled sqlstate=57014" in caplog.text
    assert "51999999999" not in caplog.text


def test_a_row_that_is_there_already_is_no_failure_of_the_database(caplog):
    failures._noted.clear()
    insert = "INSERT INTO clients (id, name, sub_domain) VALUES ($1, 'Shop', 'shop') RETURNING id"
    rows(insert, uuid.uuid4())
    with pytest.raises(IntegrityError):
        rows(insert, uuid.uuid4())
    assert "a database call failed" not in caplog.text


def test_a_refused_connection_is_logged_by_a_word(caplog):
    failures._noted.clear()
    with databases.read({**connection.settings_dict, "NAME": "nobody-s-51999999999"}), pytest.raises(OperationalError):
        row("SELECT 1")
    assert "reason=no_such_database_or_role" in caplog.text
    assert "51999999999" not in caplog.text


@pytest.fixture
def dispatcher_limits(monkeypatch):
    """The process is a dispatcher, with short limits."""
    monkeypatch.setenv("DATABASE_WAIT_SECONDS", "3")
    monkeypatch.setenv("DATABASE_LOCK_SECONDS", "0.05")
    before = limits.current()
    connection.close()
    limits.set_limits(resident.limits_of(resident.DISPATCHER))
    yield
    connection.close()
    limits.set_limits(before)


@pytest.mark.usefixtures("dispatcher_limits")
def test_a_dispatcher_s_connections_are_limited_and_keep_plans_at_once():
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "plan_cache_mode"]
    assert [row("SELECT current_setting($1)", name) for name in names] == [
        ("3s",),
        ("50ms",),
        ("1min",),
        ("force_generic_plan",),
    ]


@pytest.mark.usefixtures("dispatcher_limits")
def test_behind_a_pooler_no_setting_is_left_to_the_next_user(monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "prepare_threshold", None)
    assert row("SELECT current_setting('lock_timeout')") == ("0",)


def _nobody_looks():
    """Return when no thread looks after calls any more: it ends at its next look once there is no limit."""
    for thread in threading.enumerate():
        if thread.name == "database-limits":
            thread.join(60)


def _begin_one(calls):
    calls.append(limits.Call())
    calls[-1].begin()


class _WhoComesMeanwhile(WeakSet):
    """Calls among which, while they are read, another thread begins one."""

    def __init__(self, calls, comes):
        super().__init__(calls)
        self._comes = comes

    def __iter__(self):
        for each in super().__iter__():
            if not self._comes.ident:
                self._comes.start()
                self._comes.join(0.5)
            yield each


def test_a_call_that_begins_while_the_others_are_looked_at_ends_no_limit(monkeypatch):
    """The thread that looks is the process's only one: without it, nothing ends a call to a frozen server."""
    calls = [limits.Call() for _ in range(3)]
    comes = threading.Thread(target=_begin_one, args=(calls,))
    before = limits.current()
    _nobody_looks()
    monkeypatch.setattr(limits, "_calls", _WhoComesMeanwhile(calls, comes))
    monkeypatch.setattr(limits, "_looking", threading.Lock())
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 0)
    ours, servers = socket.socketpair()
    with ours, servers:
        calls[0].connected(ours.fileno())
        try:
            limits.set_limits(limits.Limits(wait=0.2))
            calls[0].begin()
            servers.settimeout(20)
            assert servers.recv(1) == b""  # it was cut off
            comes.join(20)
            assert not comes.is_alive()
        finally:
            limits.set_limits(before)
            calls[0].disconnected()
            _nobody_looks()


@pytest.mark.parametrize("is_cluster", [False, True])
def test_a_call_that_was_cut_off_keeps_others_from_connecting_but_for_a_cluster_s(monkeypatch, caplog, is_cluster):
    """There it was another server that did not answer."""
    before = limits.current()
    _nobody_looks()
    monkeypatch.setattr(limits, "_away_until", 0.0)
    monkeypatch.setattr(limits, "_is_cluster", False)
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 3_600.0)
    if is_cluster:
        limits.note_cluster()
    call = limits.Call()
    ours, servers = socket.socketpair()
    with ours, servers:
        call.connected(ours.fileno())
        try:
            limits.set_limits(limits.Limits(wait=0.2))
            call.begin()
            servers.settimeout(20)
            assert servers.recv(1) == b""  # it was cut off
            assert wait_for(lambda: "cut connections=1" in caplog.text, 20)
            assert limits.is_away() is not is_cluster
        finally:
            limits.set_limits(before)
            call.disconnected()
            _nobody_looks()


def test_commands_and_the_queue_have_no_limits():
    assert resident.limits_of("") == resident.limits_of(resident.QUEUE) == limits.Limits()
