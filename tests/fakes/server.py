"""A provider's end of the line over real HTTP: a small threaded server on a loopback port, and the ways it can fail.

Subclass it, answer in `handle`, and use it as a context manager:

    class Echo(FakeServer):
        def handle(self, request):
            return Reply(200, request.json())

    with Echo() as echo:
        requests.post(echo.url + "/x", json={"a": 1})
        echo.requests[0].path == "/x"

Faults are laid out beforehand and taken one a request, oldest first:

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
    """A request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Reply:
    """What to answer: `content` as it is if bytes, else as JSON."""

    status: int = 200
    content: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong.

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
        """Where it listens, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, request: Received) -> Reply:
        """Do what was asked for and answer; runs in the connection's own thread."""
        raise NotImplementedError

    def fail_next(self, fault: Fault, times: int = 1) -> None:
        """Lay out a fault for each of the next requests."""
        with self.lock:
            self._faults.extend([fault] * times)

    def close(self) -> None:
        """Stop; silent connections are cut."""
        self._closing.set()
        end(self._server)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def answer(self, request: Received) -> tuple[Reply | None, Fault]:
        """What to answer, if anything, and the fault that was laid out for this request."""
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
    """It serves no more. Its loop is woken up, which would else have us wait until it looks."""
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
        """A client that hung up is no news."""


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
            self.close_connection = True  # whoever was saying it died: half a request is none
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
