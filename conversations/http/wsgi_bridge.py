"""A bridge from RSGI to WSGI: Django answers in a thread, whatever the event loop does not answer itself.

The request's body is there as a whole. So is the answer, but for two kinds, which the loop sends without a thread: the
events of a stream, and a file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any, Protocol

from django.conf import settings

from conversations import log_context
from conversations.http.downloads import Download
from conversations.http.repeating import Repeatable, RepeatableResponse
from conversations.http.streams import Events, EventStream

REQUEST_ID = "convo.request"  # in the environment: the request's id, for the log

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]


class Scope(Protocol):
    """RSGI's description of a request (https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md)."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: Any


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its body, or the events or the file that follow. Then call `close` at the end.

    repeatable: the decision that the body rests on, where it may be given again
    """

    status: int
    headers: Headers
    body: bytes = b""
    events: Events | None = None
    file: IO[bytes] | None = None
    close: Callable[[], None] = lambda: None
    repeatable: Repeatable | None = None


def environ_of(scope: Scope, body: bytes) -> Environ:
    """Return the WSGI environment of a request (PEP 3333)."""
    host, _, port = scope.server.rpartition(":")
    client, _, client_port = scope.client.rpartition(":")
    environ: Environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": client.strip("[]"),
        "REMOTE_PORT": client_port,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        if (key := _variable(name)) is None:
            continue
        separator = "; " if name == "cookie" else ","
        environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value
    return environ


@lru_cache(maxsize=256)
def _variable(name: str) -> str | None:
    """The variable of a header; None for one that Django must not see.

    A name with an underscore would be taken for the one with a hyphen, which a proxy may have checked.
    """
    if "_" in name or name in ("content-length", "transfer-encoding"):
        return None
    variable = name.upper().replace("-", "_")
    return variable if variable == "CONTENT_TYPE" else f"HTTP_{variable}"


def call(application: Application, environ: Environ) -> Response:
    """Return the application's answer to a request.

    Whatever Django streams comes as a whole, except for events (streams.py) and files (downloads.py).
    """
    log_context.set_request(environ.get(REQUEST_ID, ""))
    started: list[tuple[str, Headers]] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
        started[:] = [(status, headers)]

    answer: Any = application(environ, start_response)
    [(line, headers)] = started
    status = int(line[:3])
    if isinstance(answer, EventStream):
        return Response(status, headers, events=answer.waits, close=answer.close)
    if isinstance(answer, Download) and answer.file and environ["REQUEST_METHOD"] != "HEAD":
        return Response(status, headers, file=answer.file, close=answer.close)
    try:
        repeatable = answer.repeatable if isinstance(answer, RepeatableResponse) else None
        return Response(status, headers, b"".join(answer), repeatable=repeatable)
    finally:
        getattr(answer, "close", lambda: None)()


def headers_of_json(application: Application) -> Headers:
    """Return the headers that every JSON answer of Django's has, but for its length."""
    environ = environ_of(_Healthz(), b"")
    return [(name, value) for name, value in call(application, environ).headers if name.lower() != "content-length"]


class _Healthz:
    """A request for `/healthz`, which needs no database."""

    http_version, scheme, method, path, query_string = "1.1", "http", "GET", "/healthz", ""
    server = client = "127.0.0.1:80"
    headers: Mapping[str, str] = {"host": settings.ALLOWED_HOSTS[0].lstrip(".*") or "localhost"}
