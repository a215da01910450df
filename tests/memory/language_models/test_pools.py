"""Connections to a model provider: used again where they can be, and enough of them for many replies at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from memory.language_models import pools
from memory.language_models.pools import SmallPools
from tests.fakes.server import FakeServer, Reply


class Counting(FakeServer):
    """Answers at once, or holds every request until `wanted` of them are here."""

    def __init__(self, wanted: int = 1) -> None:
        self.together = threading.Barrier(wanted)
        super().__init__()

    def handle(self, request: Any) -> Reply:
        """Return an empty answer."""
        self.together.wait(60)
        return Reply(200, b"{}")


def run(ask: Callable[[httpx2.AsyncClient], Any]) -> Any:
    async def main() -> Any:
        async with httpx2.AsyncClient(transport=SmallPools(), timeout=60) as client:
            return await ask(client)

    return asyncio.run(main())


def test_one_request_after_another_uses_one_connection() -> None:
    with Counting() as server:

        async def ask(client: httpx2.AsyncClient) -> list[int]:
            return [(await client.post(server.url)).status_code for _ in range(5)]

        assert run(ask) == [200] * 5
        assert server.connections == 1


def test_more_requests_at_once_than_all_pools_take_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOST_WAITING", 2)  # each takes two of the 1,024 files that a process of tests may have
    count = pools.POOLS * pools.MOST_WAITING + 20
    with Counting(count) as server:

        async def ask(client: httpx2.AsyncClient) -> list[int]:
            answers = await asyncio.gather(*(client.post(server.url) for _ in range(count)))
            return [answer.status_code for answer in answers]

        assert run(ask) == [200] * count
        assert server.connections == count
