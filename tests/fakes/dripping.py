"""A server that answers so slowly that it never ends: a byte every tenth of a second, of its headers or its body."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any, Self


class Dripping:
    """The server, on 127.0.0.1. slow: "headers" or "body"."""

    def __init__(self, slow: str) -> None:
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._head = b"HTTP/1.1 200 OK\r\nX-Slow: " if slow == "headers" else b"HTTP/1.1 200 OK\r\n\r\n"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address at which it listens."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: Any) -> None:
        with suppress(OSError), connection:
            connection.recv(65_536)
            connection.sendall(self._head)
            while not self._over.wait(0.1):
                connection.sendall(b"x")
