"""Connections to a model provider in several small pools.

A pool looks at all of its connections for each request that comes or goes. With hundreds of replies at once that is a
quarter of the CPU of a reply.
"""

from __future__ import annotations

import httpx2

MOST_WAITING = 16  # requests for each pool; then the next pool is used, and the last one for all others
POOLS = 16
LIMITS = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)


class SmallPools(httpx2.AsyncBaseTransport):
    """A transport that hands each request to the first pool with few requests, so that connections are used again."""

    def __init__(self) -> None:
        self._ssl = httpx2.create_ssl_context()
        self._pools: list[httpx2.AsyncHTTPTransport] = []
        self._waiting: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the pool's response. Raises what the pool raises."""
        at = self._free()
        self._waiting[at] += 1
        try:
            return await self._pools[at].handle_async_request(request)
        finally:
            self._waiting[at] -= 1

    def _free(self) -> int:
        for at, waiting in enumerate(self._waiting):
            if waiting < MOST_WAITING:
                return at
        if len(self._pools) < POOLS:
            self._pools.append(httpx2.AsyncHTTPTransport(verify=self._ssl, limits=LIMITS))
            self._waiting.append(0)
        return len(self._pools) - 1

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()
