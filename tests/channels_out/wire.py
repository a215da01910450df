"""Helpers for HTTP tests: our own calls, and servers that behave as a test requires."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from channels_out import http
from channels_out.errors import SendError
from tests.fakes.server import FakeServer, Received, Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Echo(FakeServer):
    def handle(self, request: Received) -> Reply:
        return Reply(200, {"got": request.json()})


def post(url: str, payload: dict[str, Any] | None = None, **options: Any) -> http.HttpAnswer:
    return http.post_json(url, payload or {}, headers={"Authorization": "Bearer token"}, **options)


def failure(url: str, **options: Any) -> SendError:
    with pytest.raises(SendError) as caught:
        post(url, **options)
    return caught.value


def outcome(error: SendError) -> tuple[str, bool, bool]:
    return error.code, error.retryable, error.ambiguous


@contextmanager
def socket_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server of bare sockets and yield its host and port. `serve` handles a connection in its own thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        listener.close()
        for connection in kept:
            connection.close()


def read_request(connection: socket.socket) -> None:
    data = b""
    while not data.endswith(b"{}"):
        part = connection.recv(65536)
        if not part:
            return
        data += part
