"""POSTs to a server of a client's own, whose answer is read while it comes. Asynchronous; nothing is retried or logged.

Somebody else chose the URL. So the connection goes to an address that was checked (public_addresses.py), no redirect is
followed and no proxy is used. The caller sets the deadlines by asyncio, which ends whatever is being waited for: a
server that sends one byte a second holds no thread, and nothing for longer than allowed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import certifi
import httpcore2

from channels_out.errors import SendError
from channels_out.public_addresses import ForbiddenAddressError, Networks, resolve

CONNECT_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}
_UNSAFE = "!$%&'()*+,-./:;=?@[]_~"  # characters of a path or query that stay as they are


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """The beginning of an answer, whatever the status. Header names are in lower case; `pieces` are its body."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def post(
    url: str, body: bytes, *, headers: Mapping[str, str], private: Networks
) -> AsyncIterator[StreamedAnswer]:
    """POST a body unchanged and yield the answer as soon as it begins; its `pieces` are read within the block.

    Each call has a connection of its own, so that none is used again which the server has closed.

    private: networks that may be reached although they are not public

    Raises SendError, also while the pieces are read: `invalid_request` and `private_address` (not retryable), `connect`
    (nothing left; retryable), `connection_lost` (ambiguous).
    """
    where, host = _target(url)
    sent = {**headers, "Host": host, "User-Agent": "Convo", "Accept-Encoding": "identity"}
    try:
        async with (
            httpcore2.AsyncConnectionPool(_certificates(), network_backend=_CheckedBackend(private)) as connections,
            connections.stream("POST", where, headers=list(sent.items()), content=body) as response,
        ):
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield StreamedAnswer(response.status, answered, _pieces(response))
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        failure = _failure(error)
    else:
        return
    raise failure  # here, so that no traceback shows the library's error, which may quote a header


async def _pieces(response: httpcore2.Response) -> AsyncIterator[bytes]:
    async for piece in response.aiter_stream():
        yield piece


def _target(url: str) -> tuple[httpcore2.URL, str]:
    """Return the URL in its parts, and the Host header. Raises SendError (`invalid_request`)."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError:  # a UnicodeError is one
        host, port = "", None
    if not host or parts.scheme not in _PORTS:
        raise SendError("The URL is not valid.", code="invalid_request", account_broken=True)
    target = quote(parts.path or "/", safe=_UNSAFE) + (f"?{quote(parts.query, safe=_UNSAFE)}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    shown = name if port in (None, _PORTS[parts.scheme]) else f"{name}:{port}"
    return httpcore2.URL(scheme=parts.scheme, host=host, port=port or _PORTS[parts.scheme], target=target), shown


def _failure(error: Exception) -> SendError:
    if isinstance(error, ForbiddenAddressError):
        return SendError("The URL leads to an address that is not public.", code="private_address", account_broken=True)
    name = type(error).__name__
    if isinstance(error, httpcore2.UnsupportedProtocol | httpcore2.LocalProtocolError):
        return SendError(
            f"The URL does not form a valid request ({name}).", code="invalid_request", account_broken=True
        )
    if isinstance(error, httpcore2.ConnectError | OSError):
        return SendError(f"The server could not be reached ({name}).", code="connect", retryable=True)
    return SendError(
        f"The connection broke before the end of the answer ({name}).", code="connection_lost", ambiguous=True
    )


class _CheckedBackend(httpcore2.AnyIOBackend):
    """Connections to addresses that were checked."""

    def __init__(self, private: Networks) -> None:
        self._private = private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Return a connection to one of the host's addresses, after all of them were checked."""
        failed: Exception = OSError("The host has no address.")
        try:
            async with asyncio.timeout(timeout or CONNECT_SECONDS):
                for address in await asyncio.to_thread(resolve, host, port, self._private):
                    try:
                        return await super().connect_tcp(address, port, None, local_address, socket_options)
                    except httpcore2.ConnectError as error:
                        failed = error
        except TimeoutError:
            failed = httpcore2.ConnectError("No connection in time.")
        raise failed


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())
