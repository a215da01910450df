"""The way to Pinecone: one request within its time, and its errors in our words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings

from memory import waiting
from memory.stores.contract import StoreError

if TYPE_CHECKING:
    from pinecone import PineconeError
    from pinecone.async_client.async_index import AsyncIndex

_T = TypeVar("_T")


def call(host: str, request: Callable[[AsyncIndex], Coroutine[Any, Any, _T]], seconds: float) -> _T:
    """What the request to the index at `host` is answered, within `seconds` with the SDK's own retries, which cannot be
    turned off. Raises StoreError."""
    from pinecone import PineconeError

    try:
        return waiting.wait(request(_indexes.at(host, settings.PINECONE_API_KEY)), seconds)
    except PineconeError as error:
        failure = _failure(error)
    except TimeoutError:
        failure = StoreError(f"Pinecone gave no answer within {seconds:g} s.", code="timeout", retryable=True)
    # Raised out here, so that no traceback shows the SDK's error: it quotes the server, which may quote the request.
    raise failure


def _failure(error: PineconeError) -> StoreError:
    """The SDK's error in our words."""
    from pinecone import ApiError, PineconeConnectionError, PineconeTimeoutError, ResponseParsingError

    if isinstance(error, PineconeTimeoutError):
        return StoreError("Pinecone gave no answer in time.", code="timeout", retryable=True)
    if isinstance(error, PineconeConnectionError):
        return StoreError("The connection to Pinecone failed.", code="unreachable", retryable=True)
    if isinstance(error, ResponseParsingError):
        return StoreError("Pinecone's answer makes no sense.", code="bad_answer", retryable=True)
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


class _Indexes:
    """A client for each index and key (in practice one), with its pool of connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], AsyncIndex] = {}

    def at(self, host: str, key: str) -> AsyncIndex:
        from pinecone.async_client.async_index import AsyncIndex

        with self._lock:
            if (host, key) not in self._clients:
                self._clients[host, key] = AsyncIndex(host=host, api_key=key)
            return self._clients[host, key]


_indexes = _Indexes()


def _forget() -> None:
    global _indexes
    _indexes = _Indexes()


waiting.in_forked_process(_forget)
