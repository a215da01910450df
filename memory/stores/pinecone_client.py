"""Sends requests to Pinecone, each within a deadline, and turns the SDK's errors into StoreErrors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings

from memory import event_loop
from memory.stores.contract import StoreError

if TYPE_CHECKING:
    from pinecone import PineconeError
    from pinecone.async_client.async_index import AsyncIndex

_T = TypeVar("_T")


def call(host: str, request: Callable[[AsyncIndex], Coroutine[Any, Any, _T]], seconds: float) -> _T:
    """Send the request to the index at `host` and return the answer. Raises StoreError.

    `seconds` is the time for everything, with the SDK's own retries, which cannot be turned off.
    """
    from pinecone import PineconeError

    try:
        return event_loop.run(request(_clients.index(host, settings.PINECONE_API_KEY)), seconds)
    except PineconeError as error:
        failure = _as_store_error(error)
    except TimeoutError:
        failure = StoreError(f"Pinecone gave no answer within {seconds:g} s.", code="timeout", retryable=True)
    # Raised here and not in the handler, so that no traceback shows the SDK's error: that quotes the server, which may
    # quote the request.
    raise failure


def _as_store_error(error: PineconeError) -> StoreError:
    from pinecone import ApiError, PineconeConnectionError, PineconeTimeoutError, ResponseParsingError

    if isinstance(error, PineconeTimeoutError):
        return StoreError("Pinecone gave no answer in time.", code="timeout", retryable=True)
    if isinstance(error, PineconeConnectionError):
        return StoreError("The connection to Pinecone failed.", code="unreachable", retryable=True)
    if isinstance(error, ResponseParsingError):
        return StoreError("Pinecone's answer is malformed.", code="bad_answer", retryable=True)
    if not isinstance(error, ApiError):
        return StoreError("Pinecone's SDK refuses the request.", code="bad_request", retryable=False)
    status, sentence = error.status_code, f"Pinecone answered with status {error.status_code}."
    if status == 429:
        return StoreError(
            sentence, code="rate_limited", retryable=True, retry_after=getattr(error, "retry_after", None)
        )
    if status >= 500 or status in {408, 409, 425}:
        return StoreError(sentence, code=f"http_{status}", retryable=True)
    codes = {401: "unauthorized", 402: "unauthorized", 403: "unauthorized", 404: "not_found"}
    return StoreError(sentence, code=codes.get(status, "bad_request"), retryable=False)


class _ClientCache:
    """One client for each index and key (in practice one), with its pool of connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], AsyncIndex] = {}

    def index(self, host: str, key: str) -> AsyncIndex:
        from pinecone.async_client.async_index import AsyncIndex

        with self._lock:
            if (host, key) not in self._clients:
                self._clients[host, key] = AsyncIndex(host=host, api_key=key)
            return self._clients[host, key]


_clients = _ClientCache()


def _reset() -> None:
    global _clients
    _clients = _ClientCache()


event_loop.after_fork(_reset)
