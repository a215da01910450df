"""Statements in batches: each succeeds or fails alone, and answers are given once what they say is on disk."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction

from conversations.services.core import batches, pipelines
from conversations.services.core.batches import Batches
from conversations.services.core.sql import rows
from conversations.services.core.statements import THIS_THREAD, BusyError, Many, UnclearError, finish

pytestmark = pytest.mark.django_db(transaction=True)

INSERT = "INSERT INTO things (id, number, text) VALUES ($1, $2, $3) RETURNING id"
INSERT_MANY = Many(
    """
    WITH asked AS (SELECT * FROM json_to_recordset($1::json) AS a (n int, v1 uuid, v2 int, v3 text)),
    new AS (INSERT INTO things (id, number, text) SELECT v1, v2, v3 FROM asked ORDER BY n DESC RETURNING id)
    SELECT n, id FROM asked JOIN new ON id = v1 WHERE v3 <> 'no answer'""",
    about=(1,),
)
COUNT = "SELECT count(*) FROM things"
SLEEPS = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'PgSleep'"""
COMMIT = "SELECT source FROM pg_settings WHERE name = 'synchronous_commit'"
SLOW = "SELECT pg_sleep($1::float8)"


@pytest.fixture(autouse=True)
def things() -> Iterator[None]:
    """Create a table with a rule of each kind."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE things (id uuid PRIMARY KEY, number int CHECK (number < 100), text text,"
            " late int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE things")


def run(work: Callable[[Batches], Coroutine[Any, Any, Any]]) -> Any:
    """Run the work on a loop of its own, with batches and four threads."""

    async def main() -> Any:
        open_batches = Batches(threads)
        try:
            return await asyncio.wait_for(work(open_batches), 60)
        finally:
            open_batches.close()

    with ThreadPoolExecutor(4) as threads:
        try:
            return asyncio.run(main())
        finally:
            batches.sql.close_connections(threads, 4, 10)


async def outcomes(*work: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def numbers() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM things ORDER BY number")
        return [number for (number,) in cursor.fetchall()]


def transactions() -> list[int]:
    """Return how many rows each transaction wrote."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM things GROUP BY xmin::text")
        return [count for (count,) in cursor.fetchall()]


def statements() -> list[int]:
    """Return how many rows each statement of the only transaction wrote."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM things GROUP BY cmin::text ORDER BY min(cmin::text::int)")
        return [count for (count,) in cursor.fetchall()]


def connection_of_its_own() -> psycopg.Connection[Any]:
    return psycopg.connect(**pipelines.connection_settings(), autocommit=True)


@contextmanager
def locked(row: UUID) -> Iterator[None]:
    """Hold a row's lock on another connection."""
    other = psycopg.connect(**pipelines.connection_settings())
    with other, other.transaction():
        other.execute("UPDATE things SET text = 'held' WHERE id = %s", [row])
        yield


def test_a_hundred_statements_at_once_each_get_their_own_row() -> None:
    ids = [uuid4() for _ in range(100)]

    async def work(open_batches: Batches) -> list[Any]:
        return await outcomes(*(open_batches.row(INSERT, each, at, "Hello") for at, each in enumerate(ids)))

    assert run(work) == [(each,) for each in ids]
    assert numbers() == list(range(100))


def test_those_that_have_a_form_for_many_are_one_statement() -> None:
    ids = [uuid4() for _ in range(20)]

    async def work(open_batches: Batches) -> list[Any]:
        asked = [open_batches.row(INSERT, each, at, 'é "\\', many=INSERT_MANY) for at, each in enumerate(ids)]
        return await outcomes(*asked, open_batches.row(INSERT, uuid4(), 20, "alone"))

    *together, alone = run(work)
    assert together == [(each,) for each in ids]
    assert isinstance(alone, tuple)
    assert statements() == [20, 1]
    assert {text for (text,) in rows("SELECT text FROM things WHERE number < 20")} == {'é "\\'}


def test_of_those_about_the_same_thing_each_after_the_first_is_alone() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        asked = [(1, "first"), (2, "other"), (1, "second"), (1, "third")]
        return await outcomes(*(open_batches.row(INSERT, uuid4(), *each, many=INSERT_MANY) for each in asked))

    assert [type(each) for each in run(work)] == [tuple] * 4
    assert statements() == [2, 1, 1]
    assert [text for (text,) in rows("SELECT text FROM things WHERE number = 1 ORDER BY cmin::text::int")] == [
        *("first", "second", "third")
    ]


def test_one_of_many_for_which_nothing_is_returned_gets_no_row() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        texts = enumerate(("", "no answer", ""))
        return await outcomes(
            *(open_batches.row(INSERT, UUID(int=at), at, each, many=INSERT_MANY) for at, each in texts)
        )

    assert run(work) == [(UUID(int=0),), None, (UUID(int=2),)]


def test_values_that_have_no_form_in_json_are_sent_alone() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        numbers_asked = (Decimal(1), Decimal(2))
        return await outcomes(
            *(open_batches.row(INSERT, uuid4(), each, "", many=INSERT_MANY) for each in numbers_asked)
        )

    assert [type(each) for each in run(work)] == [tuple, tuple]
    assert statements() == [1, 1]


def test_a_statement_reaches_postgresql_while_another_batch_runs() -> None:
    """It runs as soon as the one before has ended, before anybody has read that one's result."""

    async def work(open_batches: Batches) -> Any:
        first = asyncio.ensure_future(open_batches.read("SELECT pg_sleep(1)::text"))
        with connection_of_its_own() as other:
            while not other.execute(SLEEPS).fetchall():  # until the first batch is under way
                await asyncio.sleep(0.01)
        several = [asyncio.ensure_future(open_batches.row(INSERT, uuid4(), at, "")) for at in range(8)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # sent; nothing is read from here on
        with connection_of_its_own() as other:
            until = time.monotonic() + 20
            while (there := other.execute(COUNT).fetchall()) != [(8,)] and time.monotonic() < until:
                time.sleep(0.01)
        await asyncio.gather(first, *several)
        return there

    assert run(work) == [(8,)]


@pytest.mark.parametrize("many", [None, INSERT_MANY])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ((uuid4(), 100, "too large a number"), IntegrityError),
        ((UUID(int=0), 50, "the id of another"), IntegrityError),
        ((uuid4(), 50, "a NUL\0"), DataError),
        ((uuid4(), 2**31, "no such integer"), DataError),
    ],
)
def test_a_statement_that_fails_in_a_batch_fails_alone(
    bad: tuple[Any, ...], error: type[Exception], many: Many | None
) -> None:
    async def work(open_batches: Batches) -> list[Any]:
        await open_batches.row(INSERT, UUID(int=0), 0, "")
        before = [open_batches.row(INSERT, uuid4(), number, "", many=many) for number in (1, 2)]
        after = [open_batches.row(INSERT, uuid4(), number, "", many=many) for number in (3, 4)]
        return await outcomes(*before, open_batches.row(INSERT, *bad, many=many), *after)

    found = run(work)
    assert [type(each) for each in found] == [tuple, tuple, error, tuple, tuple]
    assert numbers() == [0, 1, 2, 3, 4]


def test_a_rule_that_is_checked_at_the_commit_refuses_its_statement_alone() -> None:
    insert = "INSERT INTO things (id, number, late) VALUES ($1, $2, $3) RETURNING id"

    async def work(open_batches: Batches) -> list[Any]:
        return await outcomes(
            open_batches.row(insert, uuid4(), 1, 7),
            open_batches.row(insert, uuid4(), 2, 7),
            open_batches.row(insert, uuid4(), 3, 8),
        )

    found = run(work)
    assert [type(each) for each in found] == [tuple, IntegrityError, tuple]
    assert numbers() == [1, 3]


def test_a_locked_row_gives_up_the_one_of_many_that_is_about_it() -> None:
    held, free = uuid4(), uuid4()
    update = "UPDATE things SET text = 'mine' WHERE id = $1 RETURNING id"
    update_many = Many(
        """
        UPDATE things SET text = 'mine' FROM json_to_recordset($1::json) AS a (n int, v1 uuid)
        WHERE id = v1 RETURNING n, id""",
        about=(0,),
    )

    async def work(open_batches: Batches) -> list[Any]:
        for number, each in enumerate((held, free)):
            await open_batches.row(INSERT, each, number, "")
        with locked(held):
            return await outcomes(*(open_batches.row(update, each, many=update_many) for each in (held, free)))

    found = run(work)
    assert isinstance(found[0], BusyError)
    assert found[1] == (free,)
    assert rows("SELECT text FROM things ORDER BY number") == [("held",), ("mine",)]


def test_a_locked_row_gives_its_statement_up_and_holds_nobody() -> None:
    held = uuid4()
    update = "UPDATE things SET text = 'mine' WHERE id = $1 RETURNING id"

    async def work(open_batches: Batches) -> list[Any]:
        await open_batches.row(INSERT, held, 1, "")
        with locked(held):
            first, second = uuid4(), uuid4()
            return await outcomes(
                open_batches.row(INSERT, first, 2, ""),
                open_batches.row(update, held),
                open_batches.row(INSERT, second, 3, ""),
            )

    found = run(work)
    assert [type(each) for each in found] == [tuple, BusyError, tuple]
    assert numbers() == [1, 2, 3]


BOTH = """WITH first AS (UPDATE things SET text = 'ours' WHERE id = $1 RETURNING id)
    UPDATE things SET text = 'ours' FROM first WHERE things.id = $2 RETURNING things.id"""


def rival(one: UUID, two: UUID, has_two: threading.Event) -> bool:
    """Take the second thing, and the first while somebody has that and waits, and return whether it got both.

    PostgreSQL ends who waited first, after a second.
    """
    with psycopg.connect(**pipelines.connection_settings()) as other:
        other.execute("UPDATE things SET text = 'rival' WHERE id = %s", [two])
        has_two.set()
        until_one(other, "wait_event_type = 'Lock'")
        try:
            other.execute("UPDATE things SET text = 'rival' WHERE id = %s", [one])
        except psycopg.errors.DeadlockDetected:  # on a machine that stood still for a second
            return False
    return True


def test_a_thread_does_a_statement_again_that_a_deadlock_undid() -> None:
    one, two = uuid4(), uuid4()
    for number, thing in enumerate((one, two), start=1):
        finish(THIS_THREAD.row(INSERT, thing, number, ""))
    for _ in range(5):
        has_two = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(rival, one, two, has_two)
            assert has_two.wait(20)
            assert finish(THIS_THREAD.row(BOTH, one, two)) == (two,)
        assert [text for (text,) in rows("SELECT text FROM things")] == ["ours", "ours"]
        if other.result():
            return
    raise AssertionError("PostgreSQL always ended the rival.")


def test_in_a_transaction_a_deadlock_is_an_error() -> None:
    """What the transaction did before is undone as well."""
    one, two = uuid4(), uuid4()
    for number, thing in enumerate((one, two), start=1):
        finish(THIS_THREAD.row(INSERT, thing, number, ""))
    for _ in range(5):
        has_two = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(rival, one, two, has_two)
            assert has_two.wait(20)
            with suppress(OperationalError), transaction.atomic():
                finish(THIS_THREAD.row(BOTH, one, two))
        if other.result():
            assert [text for (text,) in rows("SELECT text FROM things")] == ["rival", "rival"]
            return
    raise AssertionError("PostgreSQL always ended the rival.")


def test_a_deadlock_gives_one_statement_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds what the other waits for. PostgreSQL ends one of them after a second: ours, as it waited first."""
    monkeypatch.setitem(pipelines.SETTINGS, "lock_timeout", 0)  # waits until the deadlock is found
    one, two = uuid4(), uuid4()

    async def collide(open_batches: Batches, number: int) -> list[Any]:
        loop, has_two = asyncio.get_running_loop(), threading.Event()
        other = loop.run_in_executor(None, rival, one, two, has_two)
        await loop.run_in_executor(None, has_two.wait, 20)
        asked = (open_batches.row(INSERT, uuid4(), number, ""), open_batches.row(BOTH, one, two))
        return [*await outcomes(*asked, open_batches.row(INSERT, uuid4(), number + 1, "")), await other]

    async def work(open_batches: Batches) -> list[Any]:
        await open_batches.row(INSERT, one, 1, "")
        await open_batches.row(INSERT, two, 2, "")
        for number in range(3, 13, 2):
            before, ours, after, rival_got_both = await collide(open_batches, number)
            assert isinstance(before, tuple)
            assert isinstance(after, tuple)
            assert isinstance(ours, BusyError) == rival_got_both
            if rival_got_both:
                return list(range(1, number + 2))
        raise AssertionError("PostgreSQL always ended the rival.")

    expected = run(work)
    assert numbers() == expected


def until_one(other: psycopg.Connection[Any], state: str) -> None:
    """Wait until a backend of this database is in the state."""
    found = f"SELECT FROM pg_stat_activity WHERE datname = current_database() AND {state}"
    while not other.execute(found).fetchall():  # type: ignore[arg-type]
        other.execute("SELECT pg_stat_clear_snapshot()")


def test_a_backend_that_is_killed_says_of_each_statement_what_became_of_it() -> None:
    """The server said it before the transaction was over, so all of it is undone; the next one was not begun."""

    async def work(open_batches: Batches) -> list[Any]:
        await open_batches.row(INSERT, uuid4(), 0, "")
        [backend] = await open_batches.read("SELECT pg_backend_pid()") or [0]
        under_way = [
            *(open_batches.row(INSERT, UUID(int=each), each, "", many=INSERT_MANY) for each in (1, 2)),
            open_batches.row(SLOW, 1.5),
            open_batches.row(INSERT, UUID(int=3), 3, ""),
        ]
        waiting = asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.sleep(0)
        sent_ahead = [open_batches.row(INSERT, uuid4(), number, "") for number in range(10, 18)]
        following = asyncio.gather(*sent_ahead, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, kill, backend)
        return [await waiting, await following, await open_batches.row(INSERT, UUID(int=4), 4, "")]

    under_way, following, later = run(work)
    assert {type(each) for each in (*under_way, *following)} == {BusyError}
    assert later == (UUID(int=4),)
    assert numbers() == [0, 4]


def test_a_connection_that_breaks_leaves_the_transaction_under_way_unclear() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        await open_batches.row(INSERT, uuid4(), 0, "")
        first = [open_batches.row(INSERT, UUID(int=each), each, "", many=INSERT_MANY) for each in (1, 2)]
        under_way = asyncio.gather(*first, open_batches.row(SLOW, 0.5), return_exceptions=True)
        await asyncio.sleep(0)
        sent_ahead = [open_batches.row(INSERT, uuid4(), number, "") for number in range(10, 18)]
        following = asyncio.gather(*sent_ahead, return_exceptions=True)
        await asyncio.sleep(0.1)  # both are sent
        assert open_batches._pipeline
        with socket.socket(fileno=os.dup(open_batches._pipeline._socket)) as connected:
            connected.shutdown(socket.SHUT_RD)
        return [await under_way, await following, await open_batches.row(INSERT, UUID(int=4), 4, "")]

    under_way, following, later = run(work)
    assert [(type(each), each.rows) for each in under_way] == [(UnclearError, None)] * 3
    assert {type(each) for each in following} == {BusyError}
    assert later == (UUID(int=4),)


def kill(backend: int) -> None:
    """End a backend in the middle of its statement that sleeps."""
    with connection_of_its_own() as other:
        until_one(other, f"pid = {backend} AND wait_event = 'PgSleep'")
        other.execute("SELECT pg_terminate_backend(%s)", [backend])


def test_what_a_batch_writes_is_one_transaction_whose_commit_waits_for_the_disk() -> None:
    async def work(open_batches: Batches) -> Any:
        await outcomes(*(open_batches.row(INSERT, uuid4(), number, "") for number in range(20)))
        return await open_batches.read(COMMIT)

    [source] = run(work)
    assert source != "session"  # the server's own, which is on unless somebody has set it
    assert transactions() == [20]


def test_what_is_done_again_is_a_transaction_of_its_own() -> None:
    async def work(open_batches: Batches) -> Any:
        return await outcomes(*(open_batches.row(INSERT, uuid4(), number, "") for number in (97, 98, 99, 100)))

    assert [type(each) for each in run(work)] == [tuple, tuple, tuple, IntegrityError]
    assert transactions() == [1, 1, 1]


def test_what_is_only_read_waits_for_nothing_that_comes_after_it() -> None:
    async def work(open_batches: Batches) -> tuple[bool, bool]:
        slow_after = asyncio.gather(open_batches.read(COUNT), open_batches.read(COUNT)), open_batches.row(SLOW, 0.5)
        slow = asyncio.ensure_future(slow_after[1])
        await slow_after[0]
        return slow.done(), bool(await slow)

    assert run(work) == (False, True)


def test_a_database_that_answers_no_more_counts_as_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipelines, "BATCH_SECONDS", 0.3)
    monkeypatch.setitem(pipelines.SETTINGS, "statement_timeout", 0)

    async def work(open_batches: Batches) -> list[Any]:
        return await outcomes(open_batches.row(SLOW, 3.0), open_batches.row(INSERT, uuid4(), 1, ""))

    assert [type(each) for each in run(work)] == [OperationalError, OperationalError]
    assert "the database did not answer for" in caplog.text


def test_a_server_that_lets_nobody_in_counts_as_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = pipelines.connection_settings()
        nowhere = {"host": "127.0.0.1", "port": silent.getsockname()[1], "connect_timeout": 1}
        monkeypatch.setattr(pipelines, "connection_settings", lambda: settings | nowhere)

        async def work(open_batches: Batches) -> list[Any]:
            return await outcomes(open_batches.row(COUNT))

        [found] = run(work)
    assert isinstance(found, OperationalError)
    assert "the database did not answer for" in caplog.text


def test_no_connection_is_told_to_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> Any:
        raise psycopg.OperationalError("refused")

    monkeypatch.setattr(batches, "connect", refused)

    async def work(open_batches: Batches) -> list[Any]:
        first = await outcomes(open_batches.row(COUNT), open_batches.read(COUNT))
        monkeypatch.undo()
        return [*first, await open_batches.row(COUNT)]

    found = run(work)
    assert [type(each) for each in found[:2]] == [OperationalError, OperationalError]
    assert found[2] == (0,)


def test_a_client_that_is_gone_leaves_the_others_answered() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        asked = [asyncio.ensure_future(open_batches.row(INSERT, uuid4(), number, "")) for number in range(3)]
        await asyncio.sleep(0)
        asked[1].cancel()
        return await outcomes(*asked)

    found = run(work)
    assert [type(each) for each in found] == [tuple, asyncio.CancelledError, tuple]


def test_large_values_go_through_a_full_socket() -> None:
    async def work(open_batches: Batches) -> list[Any]:
        return await outcomes(*(open_batches.row(INSERT, uuid4(), number, "x" * 400_000) for number in range(30)))

    assert {type(each) for each in run(work)} == {tuple}
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(length(text)) FROM things")
        assert cursor.fetchall() == [(12_000_000,)]


def test_behind_a_pooler_statements_run_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "prepare_threshold", None)

    async def work(open_batches: Batches) -> Any:
        return await open_batches.row(INSERT, UUID(int=1), 1, "")

    assert run(work) == (UUID(int=1),)


def test_a_full_queue_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_WAITING", 3)

    async def work(open_batches: Batches) -> list[bool]:
        seen, asked = [], []
        for _ in range(3):
            asked.append(asyncio.ensure_future(open_batches.read(COUNT)))
            seen.append(open_batches.is_full)
            await asyncio.sleep(0)  # it waits for a connection
        seen.append(open_batches.is_full)
        await asyncio.gather(*asked)
        return [*seen, open_batches.is_full]

    assert run(work) == [False, False, False, True, False]
