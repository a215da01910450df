"""Work in the background leaves the clients of a server of a cluster out that hangs, and tries again by itself."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError

from conversations.services.core import cluster
from conversations.services.core import silence as module
from conversations.services.core.silence import Silence

A, B, C = uuid4(), uuid4(), uuid4()  # A and B are on one server
SERVERS = [(A, 1), (B, 1), (C, 2)]


class Clock:
    """The clock of this process, as the tests turn it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(cluster, "time", clock)
    monkeypatch.setattr(module, "rows", lambda *_: SERVERS)
    monkeypatch.setattr(cluster, "silence", Silence())
    monkeypatch.setattr(cluster, "all_clients", lambda: [A, B, C])
    monkeypatch.setattr(cluster, "can_ask_others", lambda: True)
    return clock


def asking(clock: Clock, asked: list[UUID], *, seconds: float, fails: bool = True) -> Callable[[UUID], UUID]:
    """A statement for a client. On A's and B's server it fails after so many seconds."""

    def ask(client_id: UUID) -> UUID:
        asked.append(client_id)
        if fails and client_id != C:
            clock.now += seconds
            raise OperationalError("no answer")
        return client_id

    return ask


def a_round(clock: Clock, *, seconds: float = 8.0, fails: bool = True) -> tuple[list[UUID], list[UUID]]:
    """Whom one round over all clients asks, and whom it has an answer of."""
    asked: list[UUID] = []
    answered = list(cluster.of_each([(A,), (B,), (C,)], asking(clock, asked, seconds=seconds, fails=fails)))
    return asked, answered


def test_one_wait_is_enough_for_all_clients_of_a_server(clock: Clock) -> None:
    assert a_round(clock) == ([A, C], [C])
    assert a_round(clock) == ([C], [C])


def test_a_server_that_refuses_at_once_is_asked_each_time(clock: Clock) -> None:
    for _ in range(3):
        assert a_round(clock, seconds=0.0) == ([A, B, C], [C])


def test_after_a_pause_that_grows_one_statement_tries_again(clock: Clock) -> None:
    a_round(clock)
    for pause in (10, 20, 40, 60, 60):
        clock.now += pause - 0.1
        assert a_round(clock) == ([C], [C])
        clock.now += 0.2
        assert a_round(clock) == ([A, C], [C])


def test_while_one_tries_the_others_go_on(clock: Clock) -> None:
    a_round(clock)
    clock.now += 11
    silence = cluster.silence
    assert silence.leaves_out((A,)) is False
    assert silence.leaves_out((A,)) is silence.leaves_out((B,)) is True
    assert silence.leaves_out((C,)) is False


def test_once_it_answers_all_its_clients_are_asked(clock: Clock) -> None:
    a_round(clock)
    assert cluster.silence.is_anywhere()
    clock.now += 11
    assert a_round(clock, fails=False) == ([A, B, C], [A, B, C])
    assert not cluster.silence.is_anywhere()
    assert a_round(clock) == ([A, C], [C])
    clock.now += 11
    assert a_round(clock)[0] == [A, C], "the pause begins small again"


def test_a_server_that_nobody_asks_is_not_taken_to_hang_for_ever(clock: Clock) -> None:
    """Its clients may have been moved, or deleted."""
    a_round(clock)
    clock.now += 69
    assert cluster.silence.is_anywhere()
    clock.now += 2
    assert not cluster.silence.is_anywhere()


def test_a_server_that_refuses_costs_no_list_of_clients(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[UUID]:
        raise AssertionError("all clients were listed for one of them")

    monkeypatch.setattr(cluster, "all_clients", refuse)
    assert a_round(clock, seconds=0.0) == ([A, B, C], [C])


def test_threads_that_waited_at_the_same_time_count_once(clock: Clock) -> None:
    began = clock.now
    clock.now += 8
    for _ in range(4):
        cluster.silence.note_failure((A,), began, lambda: [A, B, C])
    clock.now += 11
    assert cluster.silence.leaves_out((A,)) is False


def test_a_list_over_all_servers_is_not_asked_for_while_one_hangs(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[str] = []

    def column(statement: str, *_: object) -> list[UUID]:
        whole.append(statement)
        return [C]

    def read(client_id: UUID | None) -> list[UUID | None]:
        return [client_id]

    monkeypatch.setattr(cluster, "column", column)
    assert cluster.clients_with("SELECT") == [C]
    assert cluster.of_all(read) == [None]
    a_round(clock)
    assert cluster.clients_with("SELECT") == [A, B, C]
    assert cluster.of_all(read) == [C]
    assert whole == ["SELECT"]
