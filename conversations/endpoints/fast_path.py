"""The hottest requests, answered before Django's own handling begins: it costs more than they do.

A message to our own JSON door, and the reading of one session, each with an API key, and a provider's signed payload of
a message or of receipts.
All call the services that the views call; whatever is not plain success (a bad body, key, signature or id, a
duplicate, a limit, any other route) is left to Django, with the body put back as it came. So nothing is decided here,
and nothing is said twice.
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
from django.utils import timezone

from channels_out import registry
from channels_out.contract import InboundRequest
from conversations.http.envelope import DATABASE_AWAY, is_json, our_fault
from conversations.http.throttling import count
from conversations.http.webhook_body import arrival_of
from conversations.services.core import detail_sql
from conversations.services.core.errors import DomainError
from conversations.services.inbound import messages, provider_events
from conversations.services.tenants import api_keys

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

WEBHOOK = re.compile(r"/webhooks/(messenger|whatsapp|sms|orb|voice)/inbound\Z")
DETAIL = re.compile(r"/conversations/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\Z")
DEFAULT_CHUNKS = 10
AWAY = orjson.dumps(DATABASE_AWAY)


def in_front_of(application: Application) -> Application:
    """A WSGI application that answers what it can at once and passes the rest on."""

    def front_door(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_TRANSFER_ENCODING" in environ:
            _measure(environ)
        key = environ.get("HTTP_X_SERVICE_API_KEY", "")
        try:
            body = _answer(environ, key)
        except (OperationalError, InterfaceError):
            connection.close()
            return _send(start_response, "503 Service Unavailable", AWAY, ("Retry-After", "1"))
        except Exception:
            log.exception("front door failed")  # and not left to Django: the message may be stored
            return _send(start_response, "500 Internal Server Error", our_fault().content)
        return application(environ, start_response) if body is None else _send(start_response, "200 OK", body)

    return front_door


def _send(start_response: StartResponse, status: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    kind, length = ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
    start_response(status, [kind, length, ("X-Content-Type-Options", "nosniff"), *headers])
    return [body]


def _measure(environ: Environ) -> None:
    """Give a body that comes in chunks the length that Django reads by; it would see none of it. A little more than
    the limit is enough for a 413."""
    body = environ["wsgi.input"].read(settings.MAX_WEBHOOK_BYTES + 1)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)


def _answer(environ: Environ, key: str) -> bytes | None:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if method == "POST" and (match := WEBHOOK.match(path)):
        return _message(environ, key, match[1]) if key else _delivered(environ, match[1])
    if key and method == "GET" and not environ.get("QUERY_STRING") and (match := DETAIL.match(path)):
        return _detail(key, UUID(match[1]))
    return None


def _message(environ: Environ, key: str, channel: str) -> bytes | None:
    body = _body(environ) if is_json(environ.get("CONTENT_TYPE")) else None
    if body is None:
        return None
    try:
        arrival, client_id = arrival_of(body, channel, timezone.now())
        _begin()
        found = messages.settle_with_key(arrival, api_keys.key_hash(key), client_id)
    except DomainError:
        return None
    if found is None:
        return None
    settled, key_id = found
    api_keys.note_use(key_id)
    return orjson.dumps({"success": True, "data": settled})


def _delivered(environ: Environ, channel: str) -> bytes | None:
    """What a provider delivered, if it is as it nearly always is."""
    if environ.get("QUERY_STRING") or "HTTP_AUTHORIZATION" in environ or (body := _body(environ)) is None:
        return None
    address = settings.PUBLIC_BASE_URL + environ["PATH_INFO"]
    arrived = InboundRequest("POST", address, _headers(environ), {}, body)
    adapter = registry.recognise(channel, arrived)
    if adapter is None or adapter.acknowledgement:
        return None
    _begin()
    outcome = provider_events.settle_if_usual(arrived, adapter)
    return orjson.dumps({"success": True, "data": outcome}) if outcome else None


def _headers(environ: Environ) -> dict[str, str]:
    """As Django names them, in lower case."""
    return {_header(name): value for name, value in environ.items() if name.startswith("HTTP_")}


@lru_cache(maxsize=256)
def _header(name: str) -> str:
    return name[5:].replace("_", "-").lower()


def _body(environ: Environ) -> bytes | None:
    """The whole body, which stays to be read again; None if it is too long, or nobody knows how long."""
    length = environ.get("CONTENT_LENGTH", "")
    if not length.isdigit() or int(length) > settings.MAX_WEBHOOK_BYTES:
        return None
    body: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _detail(key: str, conversation_id: UUID) -> bytes | None:
    _begin()
    detail = detail_sql.conversation_by_key(api_keys.key_hash(key), conversation_id, DEFAULT_CHUNKS)
    if detail is None or detail.key_id is None or not count(detail.key_id):
        return None
    api_keys.note_use(detail.key_id)
    return b'{"success":true,"data":%b}' % detail.json.encode()


def _begin() -> None:
    """What Django does at the beginning of a request: a connection that is too old or broken is not used again."""
    if connection.queries_logged:
        reset_queries()
    connection.close_if_unusable_or_obsolete()
