"""A server of a cluster that hangs: its clients are refused soon, and hold no more than their places."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from django.db import OperationalError

from conversations.services.core import cluster
from conversations.services.core.cluster import MOST_AT_ONCE, answering
from conversations.services.core.statements import finish


@pytest.fixture(autouse=True)
def _no_answers_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_asked", {})


def test_of_a_flood_so_many_wait_for_the_server_and_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    waiting = list[int]()

    async def flood() -> None:
        client_id, over = uuid4(), asyncio.Event()

        async def ask(number: int) -> None:
            async with answering(client_id):
                waiting.append(number)
                await over.wait()

        first = [asyncio.create_task(ask(number)) for number in range(MOST_AT_ONCE)]
        late = await asyncio.gather(*(ask(10 + number) for number in range(20)), return_exceptions=True)
        assert {type(each) for each in late} == {OperationalError}
        async with answering(uuid4()):
            pass
        over.set()
        await asyncio.gather(*first)
        await ask(99)  # it answers again

    asyncio.run(flood())
    assert waiting == [*range(MOST_AT_ONCE), 99]


def test_who_waits_behind_quick_ones_has_their_turn() -> None:
    served = list[int]()

    async def many() -> None:
        client_id = uuid4()

        async def ask(number: int) -> None:
            async with answering(client_id):
                await asyncio.sleep(0)
                served.append(number)

        await asyncio.gather(*map(ask, range(50)))

    asyncio.run(many())
    assert sorted(served) == list(range(50))


def test_a_thread_that_asks_by_itself_needs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that Django answers has one already, and no loop in which it could wait."""
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 3_600.0)
    client_id, asked = uuid4(), list[str]()

    async def ask() -> None:
        async with answering(client_id):
            asked.append("asked")

    async def all_places_are_taken() -> None:
        async with AsyncExitStack() as taken:
            for _ in range(MOST_AT_ONCE):
                await taken.enter_async_context(answering(client_id))
            await asyncio.to_thread(finish, ask())

    asyncio.run(all_places_are_taken())
    assert asked == ["asked"]


@pytest.mark.parametrize(("slow", "refused"), [(0.0, True), (3_600.0, False)])
def test_after_a_wait_in_vain_nobody_waits_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, *, slow: float, refused: bool
) -> None:
    """A server that refuses at once is asked again at once."""
    monkeypatch.setattr(cluster, "PAUSE_SECONDS", 3_600.0)
    client_id, asked = uuid4(), list[str]()

    async def ask(word: str, error: Exception | None = None) -> None:
        async with answering(client_id):
            asked.append(word)
            if error:
                raise error

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "SLOW_SECONDS", slow)
        with pytest.raises(OperationalError):
            finish(ask("fails", OperationalError("gone")))
    try:
        finish(ask("again"))
    except OperationalError:
        assert refused
    assert asked == (["fails"] if refused else ["fails", "again"])


def test_an_error_of_another_kind_says_nothing_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    client_id = uuid4()

    async def ask(error: Exception | None = None) -> None:
        async with answering(client_id):
            if error:
                raise error

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "SLOW_SECONDS", 3_600.0)
        for _ in range(2 * MOST_AT_ONCE):  # each gives its place back
            with pytest.raises(ValueError, match="wrong"):
                finish(ask(ValueError("wrong")))
        finish(ask())
