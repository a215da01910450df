"""The web application: one event loop answers the hot requests, and Django answers all others in threads.

    request ─► body, within limit and deadline ─► hot? ─► statements in batches ─────────► answer
                                                   └────► Django in a thread (WSGI) ─┬───► answer
                                                                                     └───► stream or file, by the loop

The server (granian) calls the application by RSGI
(https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md). Nothing is read or computed in the loop
that takes long. What there is too much of is refused with 503 and Retry-After, and does not wait without end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from itertools import count
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4

import orjson
from django.conf import settings
from django.db import InterfaceError, OperationalError

from channels_out.errors import InboundError
from conversations import heartbeat, log_context, traces
from conversations.endpoints import fast_path, health, repeated
from conversations.endpoints.fast_path import HotRequest
from conversations.endpoints.repeated import Repeated
from conversations.endpoints.webhooks import REFUSAL
from conversations.http import envelope, wsgi_bridge
from conversations.http.bodies import Bodies, BodyError
from conversations.http.counted import CountedExchange
from conversations.http.streams import Events, follow
from conversations.http.wsgi_bridge import Application, Headers, Response, Scope
from conversations.services.core.batches import Batches
from conversations.services.core.errors import DomainError
from conversations.services.core.statements import Statements

log = logging.getLogger(__name__)

# Two hundred people who ask the copilot at once wait for seconds, and are not refused.
MOST_WAITING_FOR_EACH_THREAD = 24
# What many ask for at the same moment takes turns in few of the threads: in all of them they would hinder each other,
# and let everything else wait. Of sixteen threads, one is for what every open inbox asks for by itself when something
# has changed, and four are for questions to the copilot.
SHARE_OF_THREADS = {repeated.PATH: 1 / 16, "/admin/inbox/live/": 1 / 16, "/copilot": 1 / 4}
FILE_SECONDS = 10.0  # within which the server has opened a file; it reads on for as long as the reader takes
HEALTHY = orjson.dumps({"success": True, "data": {"status": "ok"}})
BUSY = orjson.dumps(envelope.failure_body("too_busy", "Too many requests at once. Send this one again in a moment."))
AWAY = orjson.dumps(envelope.DATABASE_AWAY)
AGAIN = ("Retry-After", "1")
CLOSE = ("Connection", "close")


class Exchange(Protocol):
    """A request's body and the ways to answer it: RSGI's protocol."""

    def __aiter__(self) -> Any:
        """Return the body in pieces."""

    def client_disconnect(self) -> Any:
        """Return what can be awaited until the client is gone."""

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""

    def response_file(self, status: int, headers: Headers, file: str) -> None:
        """Send a file."""

    def response_stream(self, status: int, headers: Headers) -> Any:
        """Begin a stream and return its transport."""


class WebApplication:
    """An RSGI application.

    application: Django's WSGI application
    threads: how many requests Django handles at once; each thread has a database connection
    is_stopping: returns whether the server was asked to stop
    """

    def __init__(self, application: Application, threads: int, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._application, self._is_stopping = application, is_stopping
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._most_in_threads = threads * (1 + MOST_WAITING_FOR_EACH_THREAD)
        self._in_threads = 0
        turns = {share: asyncio.Semaphore(max(1, int(threads * share))) for share in SHARE_OF_THREADS.values()}
        self._turns = {path: turns[share] for path, share in SHARE_OF_THREADS.items()}
        self._bodies = Bodies(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        self._headers = wsgi_bridge.headers_of_json(application)
        self._repeated = Repeated()
        self._ids = (f"{prefix}{number:012x}" for prefix in [uuid4().hex[:20]] for number in count())

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give signs of life from the event loop."""
        heartbeat.beat()
        loop.call_later(heartbeat.EVERY_SECONDS / 2, self.__rsgi_init__, loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what is open when the server stops."""
        if "_batches" in vars(self):  # opened by the first request
            self._batches.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        traces.flush()

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self._threads)

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer a request."""
        exchange = CountedExchange(exchange, scope.method, scope.path)
        log_context.set_request(scope.headers.get("x-request-id", "")[:100] or next(self._ids))
        if scope.path == "/healthz" and scope.method == "GET":
            self._send(exchange, 200, HEALTHY)
        elif scope.path == "/readyz" and scope.method == "GET":
            found = await health.readiness_in_time(self._batches, stopping=self._is_stopping())
            self._send(exchange, found.status_code, found.content, *([] if found.status_code == 200 else [AGAIN]))
        elif self._batches.is_full:
            self._send(exchange, 503, BUSY, AGAIN, CLOSE)
        else:
            await self.read_and_answer(self._batches, scope, exchange)

    async def read_and_answer(self, statements: Statements, scope: Scope, exchange: Exchange) -> None:
        """Answer a request once its body is there."""
        try:
            with self._bodies.reserved(scope.headers) as length:
                body = await self._bodies.read(exchange, length)
                await self.answer(statements, scope, exchange, body)
        except BodyError as error:
            self._send(exchange, error.status, orjson.dumps(error.failure), AGAIN, CLOSE)

    async def answer(self, statements: Statements, scope: Scope, exchange: Exchange, body: bytes) -> None:
        """Answer a request whose body is there."""
        refusal = None
        try:
            request = HotRequest(scope.method, scope.path, scope.query_string, scope.headers, body)
            if (found := await fast_path.answer(statements, request)) is not None:
                self._send(exchange, 200, found)
                return
            if again := await self._repeated.answer(statements, scope):
                exchange.response_bytes(200, *again)
                return
        except (DomainError, InboundError) as error:
            refusal = error
        except (OperationalError, InterfaceError) as error:
            log.warning("hot request failed: %s", type(error.__cause__ or error).__name__)
            self._send(exchange, 503, AWAY, AGAIN)
            return
        except Exception:
            log.exception("hot request failed")  # and not left to Django: the message may be stored
            self._send(exchange, 500, envelope.server_fault().content)
            return
        await self._by_django(statements, scope, exchange, body, refusal)

    def _send(self, exchange: Exchange, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        exchange.response_bytes(status, [*self._headers, *headers], body)

    async def _by_django(
        self, statements: Statements, scope: Scope, exchange: Exchange, body: bytes, refusal: Exception | None
    ) -> None:
        if self._in_threads >= self._most_in_threads:
            self._send(exchange, 503, BUSY, AGAIN)
            return
        environ = wsgi_bridge.environ_of(scope, body)
        environ[wsgi_bridge.REQUEST_ID] = log_context.current().get("request", "")
        if refusal:
            environ[REFUSAL] = refusal
        self._in_threads += 1
        begun = monotonic()
        try:
            async with self._turns.get(scope.path, nullcontext()):
                response = await statements.in_thread(wsgi_bridge.call, self._application, environ)
        except Exception:
            log.exception("request failed")
            self._send(exchange, 500, envelope.server_fault().content)
            return
        finally:
            self._in_threads -= 1
        self._repeated.note(scope, begun, response)
        await _send_response(exchange, response)


async def _send_response(exchange: Exchange, response: Response) -> None:
    """Send the answer of Django. A stream is followed to its end; a file is sent by the server."""
    if response.events:
        await _stream(exchange, response, response.events)
    elif response.file:
        exchange.response_file(response.status, response.headers, f"/proc/self/fd/{response.file.fileno()}")
        asyncio.get_running_loop().call_later(FILE_SECONDS, response.close)
    else:
        exchange.response_bytes(response.status, response.headers, response.body)


async def _stream(exchange: Exchange, response: Response, events: Events) -> None:
    gone = asyncio.ensure_future(exchange.client_disconnect())
    try:
        transport = exchange.response_stream(response.status, response.headers)
        async for piece in follow(events, gone):
            await transport.send_bytes(piece)
    except Exception as error:
        if not gone.done():
            log.warning("stream ended: %s", type(error).__name__)
    finally:
        gone.cancel()
        response.close()
