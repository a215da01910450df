"""The pauses before the client sends again: how long at least and at most, and what the server asked for."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace
from typing import Any

import pytest

from conversations.client import courier, outbox
from conversations.client.courier import FIRST_PAUSE, LONGEST_PAUSE, Courier
from conversations.client.errors import GarbledError, RateLimitedError, ServerError, UnreachableError
from conversations.client.loops import wait_for
from conversations.client.outbox import Entry
from conversations.client.service import PAUSE, _pause, _seconds
from tests.client.test_courier import CourierOf, StateServer, courier_of, server, start

__all__ = ["courier_of", "server"]  # the fixtures


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time, which stands still, for the courier and its outbox."""
    clock = SimpleNamespace(time=lambda: 1_000.0, monotonic=lambda: 1_000.0)
    monkeypatch.setattr(outbox, "time", clock)
    monkeypatch.setattr(courier, "time", clock)
    return 1_000.0


def pause_after(agent: Courier, failures: int, error: Any) -> tuple[float, float]:
    """The seconds for which the lane waits after its `failures`th failure, and those for which all lanes do."""

    async def hold_back() -> tuple[float, float]:
        agent._failures, agent._down_until = failures - 1, 0.0
        agent.box.lease("lane", agent._owner, 6.0)
        agent._hold_back(Entry(1, "lane", "message", {}, "key", 0), error)
        [(due_at,)] = agent.box._db.execute("SELECT due_at FROM lanes WHERE lane = 'lane'")
        return due_at - 1_000.0, max(agent._down_until - 1_000.0, 0.0)

    return wait_for(hold_back())


@pytest.mark.parametrize(("lot", "factor"), [(0.0, 0.75), (1.0, 1.25)])
@pytest.mark.parametrize(
    ("failures", "pause"),
    [
        (1, FIRST_PAUSE),
        (2, 2 * FIRST_PAUSE),
        (3, 4 * FIRST_PAUSE),
        (8, 128 * FIRST_PAUSE),
        (9, LONGEST_PAUSE),
        (10_000, LONGEST_PAUSE),
    ],
)
def test_pauses_double_up_to_the_longest(
    courier_of: CourierOf,
    still: float,
    monkeypatch: pytest.MonkeyPatch,
    lot: float,
    factor: float,
    failures: int,
    pause: float,
) -> None:
    monkeypatch.setattr(random, "random", lambda: lot)
    monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) * lot)
    found = pause_after(courier_of(), failures, ServerError("", status=500))
    assert found == pytest.approx((pause * factor,) * 2)


@pytest.mark.parametrize(("asked", "factor"), [(None, 1), (0.0, 1), (0.01, 1), (60.0, 300)])
def test_a_pause_is_never_shorter_than_the_server_asked_for(
    courier_of: CourierOf, still: float, monkeypatch: pytest.MonkeyPatch, asked: float | None, factor: float
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 1.0)
    error = RateLimitedError("", status=429, retry_after=asked)
    assert pause_after(courier_of(), 1, error) == pytest.approx((FIRST_PAUSE * factor,) * 2)


def test_what_ails_one_lane_holds_up_that_lane_alone(
    courier_of: CourierOf, still: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 1.0)
    agent = courier_of()
    assert pause_after(agent, 1, GarbledError()) == pytest.approx((FIRST_PAUSE, 0))
    assert pause_after(agent, 1, UnreachableError()) == pytest.approx((FIRST_PAUSE, FIRST_PAUSE))


def test_it_complains_once_of_a_server_that_is_down(
    courier_of: CourierOf, still: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    agent = courier_of()
    for failures in range(1, 5):
        pause_after(agent, failures, ServerError("secret words", status=500, code="server_error"))
    assert [record.getMessage() for record in caplog.records] == ["not delivered yet, kept in the outbox: server_error"]


def test_after_a_success_pauses_begin_anew(server: StateServer, courier_of: CourierOf) -> None:
    agent = courier_of()
    agent._failures = 7
    assert start(agent).state is not None
    assert (agent._failures, agent._down_until) == (0, 0.0)


@pytest.mark.parametrize(("attempt", "least", "most"), [(1, 0.5, 1.5), (2, 1.0, 3.0), (3, 2.0, 6.0)])
def test_a_call_of_the_service_pauses_longer_before_each_attempt(
    monkeypatch: pytest.MonkeyPatch, attempt: int, least: float, most: float
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    assert _pause(attempt, UnreachableError()) == pytest.approx(PAUSE * least)
    monkeypatch.setattr(random, "uniform", lambda _, high: high)
    assert _pause(attempt, UnreachableError()) == pytest.approx(PAUSE * most)
    for asked in (0.01, 60.0):
        assert _pause(attempt, RateLimitedError("", status=429, retry_after=asked)) == asked
    assert _pause(attempt, RateLimitedError("", status=429, retry_after=0.0)) == pytest.approx(PAUSE * most)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("", None), (None, None), ("Sun, 29 Nov", None)]
)
def test_a_retry_after_is_read_as_seconds(header: str | None, seconds: float | None) -> None:
    assert _seconds(header) == seconds
