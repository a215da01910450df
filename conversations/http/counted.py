"""Counts the answers of the web application, by route and status."""

from __future__ import annotations

import re
from functools import lru_cache
from time import perf_counter
from typing import Any

from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.services.core.counters import REQUEST_SECONDS, REQUESTS

# The first part of a path that is a label; any other is "other", since strangers can ask for anything.
FIRST = {
    *("admin", "api", "conversations", "copilot", "cron", "docs", "events", "health", "healthz", "memory", "metrics"),
    *("readyz", "schema", "simulator", "static", "webhooks"),
}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_WEBHOOK = re.compile(rf"/webhooks/(?:{'|'.join(WEBHOOK_CHANNELS)})/(?:inbound|status)\Z")


class CountedExchange:
    """An RSGI exchange whose answer is counted when it begins."""

    __slots__ = ("_began", "_exchange", "_method", "_path")

    def __init__(self, exchange: Any, method: str, path: str) -> None:
        self._exchange, self._method, self._path = exchange, method, path
        self._began = perf_counter()

    def __aiter__(self) -> Any:
        return self._exchange.__aiter__()

    def client_disconnect(self) -> Any:
        """Return what can be awaited until the client is gone."""
        return self._exchange.client_disconnect()

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        """Send a whole answer."""
        self._count(status)
        self._exchange.response_bytes(status, headers, body)

    def response_file(self, status: int, headers: Any, file: str) -> None:
        """Send a file."""
        self._count(status)
        self._exchange.response_file(status, headers, file)

    def response_stream(self, status: int, headers: Any) -> Any:
        """Begin a stream and return its transport."""
        self._count(status)
        return self._exchange.response_stream(status, headers)

    def _count(self, status: int) -> None:
        route = route_of(self._path)
        requests, seconds = _counts(route, self._method if self._method in METHODS else "other", status)
        requests.inc()
        seconds.observe(perf_counter() - self._began)


@lru_cache(maxsize=4096)
def _counts(route: str, method: str, status: int) -> tuple[Any, Any]:
    return REQUESTS.labels(route, method, str(status)), REQUEST_SECONDS.labels(route)


def route_of(path: str) -> str:
    """Return the label of a path: its first part; of a webhook the whole; of a conversation, that it names one."""
    if _WEBHOOK.match(path):
        return path
    _, first, *rest = path.split("/", 4)
    if first not in FIRST:
        return "/" if path == "/" else "other"
    if first == "conversations" and rest:
        return "/conversations/{id}" + ("/…" if len(rest) > 1 else "")
    return f"/{first}"
