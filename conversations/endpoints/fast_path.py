"""The hottest requests, answered before Django's own request handling, which costs more than they do.

They are a message in our own JSON, the reading of one conversation (both with an API key in its own header), and a
provider's signed payload. All call the functions that the views call. What they refuse goes to the view, which words
the answer and repeats nothing (`webhooks.REFUSAL`); every other request goes to Django with its body as it came.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, reset_queries

from channels_out import registry
from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.endpoints.webhooks import REFUSAL
from conversations.http import own_webhook
from conversations.http.envelope import DATABASE_AWAY, is_json, server_fault
from conversations.http.throttling import count_request
from conversations.services.core import detail_sql
from conversations.services.core.errors import DomainError
from conversations.services.inbound import provider_events
from conversations.services.tenants import api_keys

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

WEBHOOK = re.compile(rf"/webhooks/({'|'.join(WEBHOOK_CHANNELS)})/inbound\Z")
DETAIL = re.compile(r"/conversations/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\Z")
DEFAULT_CHUNKS = 10
AWAY = orjson.dumps(DATABASE_AWAY)


def in_front_of(application: Application) -> Application:
    """Return a WSGI application that answers the hottest requests itself and passes the rest on."""

    def fast_path(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_TRANSFER_ENCODING" in environ:
            _measure(environ)
        key = environ.get("HTTP_X_SERVICE_API_KEY", "").strip()
        try:
            body = _answer(environ, key)
        except (OperationalError, InterfaceError):
            connection.close()
            return _send(start_response, "503 Service Unavailable", AWAY, ("Retry-After", "1"))
        except Exception:
            log.exception("fast path failed")  # and not left to Django: the message may be stored
            return _send(start_response, "500 Internal Server Error", server_fault().content)
        return application(environ, start_response) if body is None else _send(start_response, "200 OK", body)

    return fast_path


def _send(start_response: StartResponse, status: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    kind, length = ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
    start_response(status, [kind, length, ("X-Content-Type-Options", "nosniff"), *headers])
    return [body]


def _measure(environ: Environ) -> None:
    """Read a body that comes in chunks and set its length, by which Django reads; it would see none of it.

    One byte more than the limit is read, which is enough for a 413.
    """
    body = environ["wsgi.input"].read(settings.MAX_WEBHOOK_BYTES + 1)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)


def _answer(environ: Environ, key: str) -> bytes | None:
    """The body of a 200, or None for what Django answers."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    try:
        if method == "POST" and (match := WEBHOOK.match(path)):
            return _own_message(environ, key, match[1]) if key else _provider_payload(environ, match[1])
        if key and method == "GET" and not environ.get("QUERY_STRING") and (match := DETAIL.match(path)):
            return _detail(key, UUID(match[1]))
    except (DomainError, InboundError) as refusal:
        environ[REFUSAL] = refusal
    return None


def _own_message(environ: Environ, key: str, channel: str) -> bytes | None:
    body = _body(environ) if is_json(environ.get("CONTENT_TYPE")) else None
    if body is None:
        return None
    _begin()
    return orjson.dumps({"success": True, "data": own_webhook.receive(body, channel, key)})


def _provider_payload(environ: Environ, channel: str) -> bytes | None:
    if environ.get("QUERY_STRING") or "HTTP_AUTHORIZATION" in environ or (body := _body(environ)) is None:
        return None
    address = settings.PUBLIC_BASE_URL + environ["PATH_INFO"]
    arrived = InboundRequest("POST", address, _headers(environ), {}, body)
    adapter = registry.recognise(channel, arrived)
    if adapter is None or adapter.acknowledgement or adapter.fetches_replies:
        return None
    _begin()
    return orjson.dumps({"success": True, "data": provider_events.receive(arrived, adapter)})


def _headers(environ: Environ) -> dict[str, str]:
    """The request's headers by their names in lower case."""
    return {_header(name): value for name, value in environ.items() if name.startswith("HTTP_")}


@lru_cache(maxsize=256)
def _header(name: str) -> str:
    return name[5:].replace("_", "-").lower()


def _body(environ: Environ) -> bytes | None:
    """The whole body, which can be read again; None if it is too long or its length is unknown."""
    length = environ.get("CONTENT_LENGTH", "")
    if not length.isdigit() or int(length) > settings.MAX_WEBHOOK_BYTES:
        return None
    body: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _detail(key: str, conversation_id: UUID) -> bytes | None:
    _begin()
    detail = detail_sql.conversation_by_key(api_keys.key_hash(key), conversation_id, DEFAULT_CHUNKS)
    if detail is None or detail.key_id is None or not count_request(detail.key_id):
        return None
    api_keys.note_use(detail.key_id)
    return b'{"success":true,"data":%b}' % detail.json.encode()


def _begin() -> None:
    """Do what Django does when a request begins: drop a connection that is too old or broken."""
    if connection.queries_logged:
        reset_queries()
    connection.close_if_unusable_or_obsolete()
