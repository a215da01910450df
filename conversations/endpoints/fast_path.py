"""The hottest requests, answered by the event loop before Django's own request handling, which costs more than they do.

They are a message in our own JSON, the reading of one conversation (both with an API key in its own header), and a
provider's signed payload. All call the functions that the views call. What they refuse goes to the view, which words
the answer and repeats nothing (`webhooks.REFUSAL`); every other request goes to Django with its body as it came.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import orjson
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from channels_out import registry
from channels_out.contract import InboundRequest
from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.http import own_webhook
from conversations.http.envelope import is_json
from conversations.http.throttling import count_request
from conversations.services.core import detail_sql
from conversations.services.core.statements import BusyError, Statements, UnclearError
from conversations.services.inbound import provider_events
from conversations.services.media import shown
from conversations.services.tenants import api_keys

WEBHOOK = re.compile(rf"/webhooks/({'|'.join(WEBHOOK_CHANNELS)})/inbound\Z")
DETAIL = re.compile(r"/conversations/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\Z")
DEFAULT_CHUNKS = 10
MOST_BYTES = 16_384  # of a hot body; a larger one takes too long for an event loop
API_KEY = "x-service-api-key"


class Headers(Protocol):
    """The headers of a request, by their names in lower case."""

    def get(self, name: str, default: str = "", /) -> Any:
        """Return the header's value."""

    def items(self) -> Any:
        """Return pairs of name and value."""


class HotRequest(NamedTuple):
    """A request with its whole body."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes


async def answer(statements: Statements, request: HotRequest) -> bytes | None:
    """Return the body of a 200, or None for what Django answers.

    Raises DomainError or InboundError, which the view puts into words, or Django's database errors.
    """
    if request.method == "POST" and (match := WEBHOOK.match(request.path)):
        if not _is_usual(request):
            return None
        key = request.headers.get(API_KEY, "").strip()
        return await (
            _own_message(statements, request, key, match[1]) if key else _provider(statements, request, match[1])
        )
    if request.method == "GET" and not request.query and (match := DETAIL.match(request.path)):
        key = request.headers.get(API_KEY, "").strip()
        return await _detail(statements, key, UUID(match[1])) if key and _is_usual(request) else None
    return None


def _is_usual(request: HotRequest) -> bool:
    return len(request.body) <= MOST_BYTES and _is_our_host(request.headers.get("host", ""))


@lru_cache(maxsize=256)
def _is_our_host(host: str) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


async def _own_message(statements: Statements, request: HotRequest, key: str, channel: str) -> bytes | None:
    if not is_json(request.headers.get("content-type", "")):
        return None
    return _success(await own_webhook.receive(statements, request.body, channel, key))


async def _provider(statements: Statements, request: HotRequest, channel: str) -> bytes | None:
    if request.query or request.headers.get("authorization", ""):
        return None
    headers = dict(request.headers.items())
    arrived = InboundRequest("POST", settings.PUBLIC_BASE_URL + request.path, headers, {}, request.body)
    adapter = registry.recognise(channel, arrived)
    if adapter is None or adapter.acknowledgement or adapter.fetches_replies:
        return None
    return _success(await provider_events.receive(statements, arrived, adapter))


def _success(data: Any) -> bytes:
    return orjson.dumps({"success": True, "data": data})


async def _detail(statements: Statements, key: str, conversation_id: UUID) -> bytes | None:
    try:
        found = detail_sql.conversation_by_key(statements, api_keys.key_hash(key), conversation_id, DEFAULT_CHUNKS)
        detail = await found
    except (BusyError, UnclearError):
        return None
    if detail is None or detail.key_id is None or not count_request(detail.key_id):
        return None
    api_keys.note_use(detail.key_id, statements)
    return b'{"success":true,"data":%b}' % shown.whole(detail).encode()
