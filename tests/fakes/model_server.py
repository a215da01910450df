"""The base of the fakes of model servers: requests are logged, checked, and answered as the test ordered, over HTTP.

A fake subclasses ModelServer and says what it refuses (`refusal`) and how it answers (`answer`). The kinds that each
fake has are here; `then(kind, times=1, **options)` orders one of them for the next calls:

    reply       a good answer; its options are the fake's
    status      an error. status, headers, code, message, param and type (of the error's body), or body (text) instead
    hang        the request is taken, and no answer comes. seconds (else until the fake is closed)
    drip        a good answer, byte by byte. every (0.02 seconds), where: "body" or "head"
    cut         the connection breaks in the middle of the answer; with rst=True by a TCP reset
    reset       the connection breaks before any answer; with rst=True by a TCP reset
    raw         a 200 with body (text) and content_type ("application/json") as they are given
    nonsense, html: a 200 with that

and for streams only:

    early       the stream ends in good order after `after` pieces (half of them), without its last events
    error       an error within the stream after `after` pieces. code and message
    silent      after `after` pieces nothing more comes. seconds (else until the fake is closed)
    endless     the pieces again and again, until the reader goes away

Every kind takes `delay` (seconds before the answer). Requests that the server would refuse are refused before any of
the above is used up, and noted in `problem`.

Each fake also serves other processes; it prints its address on the first line, takes orders and shows its requests:

    python -m tests.fakes.responses_api --port 9009 --delay 2
    curl -d '{"kind": "hang", "times": 3}' http://127.0.0.1:9009/_then
    curl http://127.0.0.1:9009/_requests
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.server import end
from tests.prompts import heard

HTML = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
# Kinds that are a body of their own: (body, content type).
BODIES = {"nonsense": ('{"id": "chatcmpl-1", "choices": [{"mess', "application/json"), "html": (HTML, "text/html")}
STREAM_KINDS = frozenset({"early", "error", "silent", "endless"})
KINDS = frozenset({"reply", "status", "hang", "drip", "cut", "reset", "raw", *BODIES}) | STREAM_KINDS

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class LoggedRequest:
    """A request as it arrived. Header names are in lower case; `path` is without `query`; `body` is {} where it was no
    JSON object; `at` is Unix time; `problem` says what was wrong with it."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    at: float
    problem: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True)
class Refusal:
    """An error that a server answers a request with. `body` takes the place of the server's usual error object."""

    message: str
    status: int = 400
    code: str | None = None
    param: str | None = None
    type: str = "invalid_request_error"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass
class Behaviour:
    """The order for one call: see `then` above."""

    kind: str = "reply"
    options: dict[str, Any] = field(default_factory=dict)


class ModelServer:
    """The server. `api_key` set: every other key is refused. `delay`: seconds before every answer."""

    kinds: ClassVar[frozenset[str]] = KINDS
    bodies: ClassVar[Mapping[str, tuple[str, str]]] = BODIES

    def __init__(self, *, port: int = 0, api_key: str = "", delay: float = 0.0) -> None:
        self.api_key = api_key
        self.delay = delay
        self.reply: Callable[[Messages], str] = echo
        self.requests: list[LoggedRequest] = []
        self.connections = 0  # that were made to it
        self.in_flight = 0
        self.most_in_flight = 0
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._next: deque[Behaviour] = deque()
        self._server = _Server(("127.0.0.1", port), Exchange)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def refusal(self, request: LoggedRequest) -> Refusal | None:
        """Return what the real server refuses the request with; None if it takes it."""
        raise NotImplementedError

    def answer(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        """Answer a good request with a `kind` that is an answer or a stream."""
        raise NotImplementedError

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        """Return the error's JSON in the server's form."""
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        """Return the headers that every answer has."""
        return {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        end(self._server)

    @property
    def url(self) -> str:
        """The address at which it listens, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """The address that an OpenAI client is given."""
        return f"{self.url}/v1"

    def then(self, kind: str, times: int = 1, **options: Any) -> None:
        """Order the kind for the next `times` calls, after those that were ordered before."""
        if kind not in self.kinds:
            raise ValueError(f"{kind!r} is none of {', '.join(sorted(self.kinds))}.")
        with self._changed:
            self._next.extend(Behaviour(kind, options) for _ in range(times))

    def wait_for_requests(self, count: int, seconds: float = 10.0) -> None:
        """Return when `count` requests have arrived in all. Raises AssertionError if they have not within `seconds`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, seconds), (
                f"{len(self.requests)} requests instead of {count} within {seconds:g} s"
            )

    def take(self, request: LoggedRequest) -> Behaviour:
        """Log the request and say what happens to it."""
        with self._changed:
            self.requests.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
            return self._next.popleft() if self._next and not request.problem else Behaviour()

    def done(self) -> None:
        """The request that was taken has been answered, or not."""
        with self._changed:
            self.in_flight -= 1


def echo(messages: Messages) -> str:
    """The default reply: repeats the last message of the person."""
    said = heard(messages)
    return f"You said: {said[-1]}" if said else "Hello."


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is text, a list of parts, or null."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def words_of(text: str) -> list[str]:
    """Return the text in pieces of a word and what follows it."""
    return re.findall(r"\S+\s*|\s+", text)


def pieces_of(text: str, size: int = 7) -> list[str]:
    """Return the text in pieces of so many characters."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def serve(fake_class: type[ModelServer]) -> None:
    """Serve until killed, for other processes; the first line that is printed is the address."""
    parser = argparse.ArgumentParser(description=(fake_class.__doc__ or "").split(".")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--api-key", default="", help="refuse every other key")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    options = parser.parse_args()
    with fake_class(port=options.port, api_key=options.api_key, delay=options.delay) as fake:
        print(fake.base_url, flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


# --- the server ------------------------------------------------------------------------------------------------------
class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    fake: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about: nothing to print."""


class Exchange(BaseHTTPRequestHandler):
    """One connection: reads requests, and has the means to answer and to break off. `request_read` is the request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server
    request_read: LoggedRequest

    @property
    def fake(self) -> ModelServer:
        return self.server.fake

    @property
    def body(self) -> Mapping[str, Any]:
        return self.request_read.body

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        with self.fake._changed:
            self.fake.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/_requests":
            self.json(200, [asdict(request) for request in self.fake.requests])
        else:
            self._serve({})

    def do_POST(self) -> None:
        body = self._read()
        if self.path == "/_then":
            self._then(body)
        else:
            self._serve(body)

    def json(self, status: int, data: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        self.send(status, json.dumps(data).encode(), "application/json", headers)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error."""
        body = refusal.body if refusal.body is not None else self.fake.error_body(refusal)
        self.json(refusal.status, body, refusal.headers)

    def send(self, status: int, content: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with these bytes."""
        self._head(status, len(content), content_type, headers)
        self.wfile.write(content)
        self.wfile.flush()

    def whole(self, kind: str, answer: Any, options: Mapping[str, Any]) -> None:
        """Answer with JSON as the kind says: at once, byte by byte, or half of it."""
        content = json.dumps(answer).encode()
        if kind == "cut":
            self._head(200, len(content), "application/json")
            self.wfile.write(content[: len(content) // 2])
            self.break_off(rst=options.get("rst", False))
        elif kind == "drip":
            self._drip(content, options.get("every", 0.02), options.get("where", "body"))
        else:
            self.send(200, content, "application/json")

    def start_events(self) -> None:
        """Begin a stream of server-sent events, in chunks of HTTP."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in self.fake.headers().items():
            self.send_header(name, value)
        self.end_headers()

    def event(self, data: Any, name: str = "") -> None:
        """Send one event, with its name where the server names them."""
        text = data if isinstance(data, str) else json.dumps(data)
        content = (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()

    def end_events(self) -> None:
        """End the stream in good order."""
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def break_off(self, *, rst: bool = False) -> None:
        """Close the connection after what was written so far, or reset it."""
        self.wfile.flush()
        if rst:
            time.sleep(0.05)  # else the reset overtakes what was written
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _serve(self, body: dict[str, Any]) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = LoggedRequest(url.path, headers, body, time.time(), "", dict(parse_qsl(url.query)), self.command)
        refusal = self.fake.refusal(request)
        if refusal:
            request = LoggedRequest(**{**vars(request), "problem": refusal.message})
        self.request_read = request
        behaviour = self.fake.take(request)
        try:
            if refusal:
                self.refuse(refusal)
            else:
                self._behave(behaviour.kind, dict(behaviour.options))
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            self.fake.done()

    def _then(self, order: dict[str, Any]) -> None:
        try:
            self.fake.then(order.pop("kind", ""), **order)
        except (TypeError, ValueError) as error:
            self.refuse(Refusal(str(error)))
        else:
            self.json(200, {})

    def _read(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with contextlib.suppress(ValueError):
            body = json.loads(raw)
            if isinstance(body, dict):
                return body
        return {}

    def _behave(self, kind: str, options: dict[str, Any]) -> None:
        self.fake.closing.wait(options.pop("delay", self.fake.delay))
        if kind in self.fake.bodies:
            text, content_type = self.fake.bodies[kind]
            self.send(200, text.encode(), content_type)
        elif kind == "raw":
            self.send(200, options["body"].encode(), options.get("content_type", "application/json"))
        elif kind == "status":
            self._status(options)
        elif kind == "hang":
            self.fake.closing.wait(options.get("seconds"))
            self.close_connection = True
        elif kind == "reset":
            self.break_off(rst=options.get("rst", False))
        else:
            self.fake.answer(self, kind, options)

    def _status(self, options: dict[str, Any]) -> None:
        text = options.pop("body", None)
        if text is None:
            self.refuse(Refusal(**{"message": "Something went wrong.", **options}))
        else:
            self.send(options["status"], text.encode(), "application/json", options.get("headers"))

    def _drip(self, content: bytes, every: float, where: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        slow = head + content
        if where == "body":
            self.wfile.write(head)
            slow = content
        for byte in slow:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.fake.closing.wait(every):
                break
        self.close_connection = True

    def _head(self, status: int, length: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        for name, value in {**self.fake.headers(), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
