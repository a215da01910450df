"""The web application in the test's own thread and transaction, without sockets and batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import Any

import orjson
from django.conf import settings

from conversations.endpoints.fast_path import DETAIL, WEBHOOK
from conversations.endpoints.web_application import WebApplication
from conversations.http.bodies import Bodies, BodyError
from conversations.services.core.statements import THIS_THREAD, finish

PIECE = 65_536


class _Exchange:
    """A body in pieces, and the answer that it gets."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.answer: tuple[int, list[tuple[str, str]], bytes] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), PIECE):
            yield self._body[start : start + PIECE]

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answer = (status, headers, body)


class _Scope:
    """A request, as RSGI describes it."""

    http_version, scheme, server, client = "1.1", "http", "testserver:80", "127.0.0.1:5000"

    def __init__(self, environ: dict[str, Any]) -> None:
        self.method, self.query_string = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        self.path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        named = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
        named |= {name: environ[name] for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)}
        self.headers = {"host": "testserver"} | {name.lower().replace("_", "-"): value for name, value in named.items()}


async def _read(scope: _Scope, exchange: _Exchange) -> bytes:
    bodies = Bodies(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    with bodies.reserved(scope.headers) as length:
        return await bodies.read(exchange, length)


def behind_the_loop(django: Callable[..., Any]) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application that answers hot routes as the event loop does, and passes the rest to Django."""

    web = WebApplication(django, 1)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        is_hot = WEBHOOK.match(environ["PATH_INFO"]) or DETAIL.match(environ["PATH_INFO"])
        if not is_hot and "HTTP_TRANSFER_ENCODING" not in environ:
            return django(environ, start_response)  # type: ignore[no-any-return]
        scope, exchange = _Scope(environ), _Exchange(environ["wsgi.input"].read())
        try:
            body = asyncio.run(_read(scope, exchange))
        except BodyError as error:
            exchange.response_bytes(error.status, [("Content-Type", "application/json")], orjson.dumps(error.failure))
        else:
            finish(web.answer(THIS_THREAD, scope, exchange, body))  # type: ignore[arg-type]
        assert exchange.answer
        status, headers, content = exchange.answer
        length = (
            [] if "content-length" in {name.lower() for name, _ in headers} else [("Content-Length", str(len(content)))]
        )
        start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, *length])
        return [content]

    return application
