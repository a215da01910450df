"""The base of all fakes: a small threaded HTTP server on a loopback port, and the faults that it can inject.

Subclass it, answer in `handle`, and use it as a context manager:

    class Echo(FakeServer):
        def handle(self, request):
            return Reply(200, request.json())

    with Echo() as echo:
        requests.post(echo.url + "/x", json={"a": 1})
        echo.requests[0].path == "/x"

Faults are injected beforehand and used up one per request, oldest first:

    echo.fail_next(Fault(status=500), times=2)
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Received:
    """A received request. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON, None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Reply:
    """An answer. `content` is sent unchanged if it is bytes, else as JSON."""

    status: int = 200
    content: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass(frozen=True)
class Fault:
    """A fault of one request.

    status, content, headers    answer this, and do not do what was asked for
    cut                         "before": hang up without doing what was asked for; "after": do it, then hang up;
                                "body": do it, then hang up in the middle of the answer
    hang                        do it, then keep silent for these seconds (the server's end cuts it short)
    reset                       hang up with RST rather than FIN
    """

    status: int = 0
    content: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: Literal["", "before", "after", "body"] = ""
    hang: float = 0.0
    reset: bool = False


class FakeServer:
    """A threaded HTTP server on 127.0.0.1. Everything it received is in `requests`, and `connections` counts."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.lock = threading.Lock()
        self._faults: deque[Fault] = deque()
        self._closing = threading.Event()
        self_of_server = self

        class Handler(_Handler):
            fake = self_of_server

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address at which it listens, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, request: Received) -> Reply:
        """Handle a request and return the answer. It runs in the connection's own thread."""
        raise NotImplementedError

    def fail_next(self, fault: Fault, times: int = 1) -> None:
        """Inject a fault into each of the next requests."""
        with self.lock:
            self._faults.extend([fault] * times)

    def close(self) -> None:
        """Stop the server and cut silent connections."""
        self._closing.set()
        end(self._server)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def answer(self, request: Received) -> tuple[Reply | None, Fault]:
        """Return the answer, if any, and the fault that was injected into this request."""
        with self.lock:
            self.requests.append(request)
            fault = self._faults.popleft() if self._faults else Fault()
        reply: Reply | None
        if fault.status:
            reply = Reply(fault.status, fault.content, fault.headers)
        else:
            reply = None if fault.cut == "before" else self.handle(request)
        if fault.hang:
            self._closing.wait(fault.hang)
        return (None if fault.cut == "after" else reply), fault


def end(server: ThreadingHTTPServer) -> None:
    """Stop the loop, and wake it up: else we would wait for its next poll."""
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    with suppress(OSError):
        socket.create_connection(server.server_address[:2], timeout=1).close()  # type: ignore[arg-type]
    stopping.join()
    server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeServer

    def setup(self) -> None:
        super().setup()
        with self.fake.lock:
            self.fake.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True  # the client died: half a request is no request
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply, fault = self.fake.answer(Received(self.command, self.path, headers, body))
        if reply is None:
            self._hang_up(fault)
            return
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if fault.cut == "body":
            self.wfile.write(reply.body[: len(reply.body) // 2])
            self._hang_up(fault)
            return
        self.wfile.write(reply.body)

    def do_GET(self) -> None:
        self.do_POST()

    def do_PATCH(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def _hang_up(self, fault: Fault) -> None:
        self.wfile.flush()
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
