"""A client's own agent over real HTTP on a loopback port, as docs/own-agent.md describes it.

    with FakeAgent() as agent:
        agent.then(Answer({"messages": ["On its way."], "steps": {"complete": [7]}}))
        agent.then(Stream([("delta", {"text": "On "}), ("done", {})]))
        ... a reply is written ...
        agent.requests[0]["messages"][-1]["content"]

What is told with `then` is used up one per request; after it the agent repeats what it heard. A request that is not
signed with its secret is refused; the library of Standard Webhooks decides that.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

from channels_out.simulators import orb
from tests.fakes.server import _Server, end

Events = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Answer:
    """A whole answer. `body` is sent unchanged if it is bytes, else as JSON.

    hang    silent for these seconds before
    every   seconds between two bytes, of the head as well
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: float = 0.0
    every: float = 0.0


@dataclass(frozen=True)
class Stream:
    """A stream of events, as name and data; data that is text is sent unchanged. `hold`: waited for before the last."""

    events: Events
    hold: threading.Event | None = None


LATER = Answer({"later": True}, status=202)


class FakeAgent:
    """The agent. `requests` are the bodies that it received, `headers` those of each."""

    def __init__(self, secret: str = "", port: int = 0) -> None:
        self.secret = secret or orb.new_secret()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refused = 0
        self.closing = threading.Event()
        self.heard: Callable[[dict[str, Any]], None] = lambda _request: None
        self._next: deque[Answer | Stream] = deque()
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.closing.set()
        end(self._server)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/agent"

    def then(self, *answers: Answer | Stream) -> None:
        """Answer the next requests so."""
        self._next.extend(answers)

    def says(self, *messages: str, **more: Any) -> None:
        """Answer the next request with these messages."""
        self.then(Answer({"messages": list(messages), **more}))

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        """Return when so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, seconds), len(self.requests)

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer | Stream:
        """Verify a request, keep it, and return its answer."""
        try:
            request = Webhook(self.secret).verify(body, dict(headers))
        except WebhookVerificationError:
            self.refused += 1
            return Answer(status=401)
        with self._changed:
            self.requests.append(request)
            self.headers.append(dict(headers))
            answer = self._next.popleft() if self._next else Answer({"messages": [echo(request)]})
            self._changed.notify_all()
        self.heard(request)
        return answer


def echo(request: Mapping[str, Any]) -> str:
    """Return the words of an agent that was told nothing else."""
    heard = [each["content"] for each in request["messages"] if each["role"] in ("user", "voice")]
    return f"You said: {' / '.join(heard)}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        fake: FakeAgent = self.server.fake  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = fake.take({name.lower(): value for name, value in self.headers.items()}, body)
        self.close_connection = True
        with suppress(OSError):
            if isinstance(answer, Stream):
                self._stream(answer, fake)
            else:
                self._answer(answer, fake)

    def _answer(self, answer: Answer, fake: FakeAgent) -> None:
        fake.closing.wait(answer.hang)
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Fine", *(f"{name}: {value}" for name, value in headers.items())]
        whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
        if not answer.every:
            self.wfile.write(whole)
            return
        for byte in whole:
            self.wfile.write(bytes([byte]))
            if fake.closing.wait(answer.every):
                return

    def _stream(self, answer: Stream, fake: FakeAgent) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n: begins\n\n")
        for number, (name, data) in enumerate(answer.events, start=1):
            if answer.hold and number == len(answer.events):
                answer.hold.wait(30)
            text = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write(f"event: {name}\ndata: {text}\n\n".encode())
            self.wfile.flush()
            if fake.closing.is_set():
                return
