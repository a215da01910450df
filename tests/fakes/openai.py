"""A fake of OpenAI's chat completions and embeddings over real loopback HTTP: for any test, and for any other process.

In a test:

    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.reply = lambda messages: "Hello!"              # else it repeats the last message of the person
        fake.then("status", times=2, status=429, headers={"Retry-After": "1"})
        …
        assert fake.requests[-1].body["messages"] == …

For another process (it prints its base URL on the first line):

    python -m tests.fakes.openai --port 9009 --delay 2
    curl -d '{"kind": "hang", "times": 3}' http://127.0.0.1:9009/_then
    curl http://127.0.0.1:9009/_requests

`then(kind, times=1, **options)` says what happens to the next calls; after them it answers again as always.

    reply       a completion. text (else what `reply` makes of the messages), finish_reason ("stop"), model, usage,
                tool_calls ([(name, arguments)]; without text unless that is given), confidence (0.9; if asked for)
    status      an error. status, headers, code and message (of OpenAI's error body), or body (text) instead
    hang        the request is taken, and no answer comes. seconds (else until the fake is closed)
    drip        a good answer, byte by byte. every (0.02 seconds), where: "body" or "head"
    cut         the connection breaks in the middle of the body
    reset       the connection breaks before any answer
    raw         a 200 with body (text) and content_type ("application/json") as they are given
    nonsense, html, no_choices, no_content: a 200 with that
    blank       a completion that holds only blanks

A request for a stream gets one (tests/fakes/openai_stream.py: more kinds and options).
Every kind takes `delay` (seconds before the answer). Embeddings (tests/fakes/embeddings.py) go the same way, except
that `reply` and `blank` mean vectors. Requests are checked as OpenAI checks them: what is wrong is
answered with its 400, 401 or 404 before any of the above is used up, and noted in `problem`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes import embeddings, openai_stream, tools
from tests.fakes.server import end

EMBEDDINGS = "/v1/embeddings"
ROLES = {"system", "developer", "user", "assistant", "tool"}
FIELDS = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "stream", "stream_options"}
FIELDS |= {"tools", "tool_choice", "logprobs"}
HTML = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
# Kinds that are a body of their own: (body, content type).
BODIES = {
    "nonsense": ('{"id": "chatcmpl-1", "choices": [{"mess', "application/json"),
    "html": (HTML, "text/html"),
    "no_choices": ('{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}', "application/json"),
    "no_content": ('{"choices": [{"message": {"role": "assistant", "content": null}}]}', "application/json"),
}
KINDS = {"reply", "status", "hang", "drip", "cut", "reset", "raw", "blank", *BODIES, *openai_stream.KINDS}

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class LoggedRequest:
    """A request as it arrived. Header names are in lower case; `body` is {} where it was no JSON object; `at` is Unix
    time; `problem` says what was wrong with it."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    at: float
    problem: str = ""


@dataclass
class Behaviour:
    """What happens to one call: see `then` above."""

    kind: str = "reply"
    options: dict[str, Any] = field(default_factory=dict)


class FakeOpenAI:
    """The server. `api_key` set: every other key is refused. `delay`: seconds before every answer."""

    def __init__(self, *, port: int = 0, api_key: str = "", delay: float = 0.0) -> None:
        self.api_key = api_key
        self.delay = delay
        self.reply: Callable[[Messages], str] = echo
        self.requests: list[LoggedRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._next: deque[Behaviour] = deque()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        end(self._server)

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def then(self, kind: str, times: int = 1, **options: Any) -> None:
        """The next `times` calls, after those already told, are treated so."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {', '.join(sorted(KINDS))}.")
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
    said = [message["content"] for message in messages if message["role"] == "user"]
    return f"You said: {said[-1]}" if said else "Hello."


def problem_with(body: Mapping[str, Any]) -> str:
    """What OpenAI would refuse in the request's JSON; '' if nothing."""
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        return f"Unrecognized request argument supplied: {unknown[0]}"
    if not isinstance(body.get("model"), str) or not body["model"]:
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "[] is too short - 'messages'"
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"Invalid value for 'messages[{index}].role'"
        if wrong := tools.problem_with_message(messages, index):
            return wrong
    return tools.problem_with(body) or _problem_with_numbers(body)


def _problem_with_numbers(body: Mapping[str, Any]) -> str:
    temperature = body.get("temperature", 1)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        return "Invalid 'temperature'"
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name, 1)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            return f"Invalid '{name}'"
    return ""


PROBLEMS = {"/v1/chat/completions": problem_with, EMBEDDINGS: embeddings.problem_with}


# --- the server ------------------------------------------------------------------------------------------------------
class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    fake: FakeOpenAI

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about: nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/_requests":
            self._json(200, [asdict(request) for request in self.server.fake.requests])
        else:
            self._error(404, "Unknown request URL", "unknown_url")

    def do_POST(self) -> None:
        fake = self.server.fake
        body = self._body()
        if self.path == "/_then":
            self._then(body)
            return
        status, problem = self._refusal(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour = fake.take(LoggedRequest(self.path, headers, body, time.time(), problem))
        try:
            if problem:
                self._error(status, problem, "invalid_api_key" if status == 401 else None)
            else:
                self._behave(behaviour, body)
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            fake.done()

    def _then(self, order: dict[str, Any]) -> None:
        try:
            self.server.fake.then(order.pop("kind", ""), **order)
        except (TypeError, ValueError) as error:
            self._error(400, str(error), None)
        else:
            self._json(200, {})

    def _body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with contextlib.suppress(ValueError):
            body = json.loads(raw)
            if isinstance(body, dict):
                return body
        return {}

    def _refusal(self, body: Mapping[str, Any]) -> tuple[int, str]:
        """The status and sentence that OpenAI refuses the request with; (200, '') if it takes it."""
        if self.path not in PROBLEMS:
            return 404, f"Invalid URL (POST {self.path})"
        key = self.server.fake.api_key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            return 401, f"Incorrect API key provided: {self.headers.get('Authorization')}"
        if self.headers.get_content_type() != "application/json" or not body:
            return 400, "We could not parse the JSON body of your request."
        problem = PROBLEMS[self.path](body)
        return (400, problem) if problem else (200, "")

    def _behave(self, behaviour: Behaviour, body: Mapping[str, Any]) -> None:
        kind, options, fake = behaviour.kind, dict(behaviour.options), self.server.fake
        fake.closing.wait(options.pop("delay", fake.delay))
        if kind in BODIES:
            text, content_type = BODIES[kind]
            self._answer(200, text.encode(), content_type)
        elif kind == "raw":
            self._answer(200, options["body"].encode(), options.get("content_type", "application/json"))
        elif kind == "status":
            self._status(**options)
        elif kind == "hang":
            fake.closing.wait(options.get("seconds"))
            self.close_connection = True
        elif kind == "reset":
            self.close_connection = True
        elif self.path == EMBEDDINGS:
            self._send(kind, embeddings.answer(body), options)
        else:
            text = " \n" if kind == "blank" else options.pop("text", None)
            if text is None and options.get("tool_calls"):
                text = ""
            if text is None:
                text = fake.reply(body["messages"])
            if body.get("stream"):
                openai_stream.stream(self, kind, text, body, options)
            else:
                self._complete(kind, text, body, options)

    def _status(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        message: str = "Something went wrong.",
        body: str | None = None,
    ) -> None:
        if body is None:
            self._error(status, message, code, headers)
        else:
            self._answer(status, body.encode(), "application/json", headers)

    def _complete(self, kind: str, text: str, body: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        asked = sum(len(message["content"] or "") for message in body["messages"])
        called = tools.calls(options.get("tool_calls", ()), len(body["messages"]))
        answer = {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": options.get("model", body["model"]),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text or None, "refusal": None, **called},
                    "logprobs": tools.probabilities(text, options.get("confidence", 0.9), body),
                    "finish_reason": options.get("finish_reason", "stop"),
                }
            ],
            "usage": options.get(
                "usage",
                {
                    "prompt_tokens": asked // 4,
                    "completion_tokens": len(text) // 4,
                    "total_tokens": asked // 4 + len(text) // 4,
                },
            ),
        }
        self._send(kind, answer, options)

    def _send(self, kind: str, answer: dict[str, Any], options: Mapping[str, Any]) -> None:
        content = json.dumps(answer).encode()
        if kind == "cut":
            self._head(200, len(content), "application/json")
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif kind == "drip":
            self._drip(content, options.get("every", 0.02), options.get("where", "body"))
        else:
            self._answer(200, content, "application/json")

    def _drip(self, content: bytes, every: float, where: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        slow = head + content
        if where == "body":
            self.wfile.write(head)
            slow = content
        for byte in slow:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.fake.closing.wait(every):
                break
        self.close_connection = True

    def _error(self, status: int, message: str, code: str | None, headers: Mapping[str, str] | None = None) -> None:
        kind = code if code == "insufficient_quota" else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        self._json(status, {"error": error}, headers)

    def _json(self, status: int, data: Any, headers: Mapping[str, str] | None = None) -> None:
        self._answer(status, json.dumps(data).encode(), "application/json", headers)

    def _answer(self, status: int, content: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, len(content), content_type, headers)
        self.wfile.write(content)
        self.wfile.flush()

    def _head(self, status: int, length: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A fake of OpenAI's chat completions and embeddings.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--api-key", default="", help="refuse every other key")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    options = parser.parse_args()
    with FakeOpenAI(port=options.port, api_key=options.api_key, delay=options.delay) as fake:
        print(fake.base_url, flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
