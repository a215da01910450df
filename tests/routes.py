"""Every route that the URL resolver knows, what the OpenAPI says of it, and how to call it as a web server does."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from urllib.parse import quote, unquote_to_bytes

from django.db import connection, connections
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from conversations.api.schema import openapi
from convo_project import wsgi
from tests.web_door import behind_the_loop

APPLICATION = behind_the_loop(wsgi.application)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Pages for people, the description itself, providers' ends, the signed-in user's copilot, the clock's
# routes, Prometheus' page, files behind links, the pages of e-mails' links, scripts' words.
PAGES = ("/admin", "/docs", "/schema", "/simulator", "/copilot", "/cron", "/metrics", "/media", "/mail", "/words")
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
SCHEMA = json.loads(openapi(RequestFactory().get("/schema/")).content)
_DESCRIBED = {re.sub(r"\{\w+\}", "{}", path): operations for path, operations in SCHEMA["paths"].items()}


@dataclass(frozen=True)
class Route:
    """A pattern such as `/conversations/<uuid:pk>`."""

    pattern: str

    def __str__(self) -> str:
        return self.pattern

    @property
    def parameters(self) -> list[str]:
        return _PARAMETER.findall(self.pattern)

    @property
    def anonymous(self) -> str:
        """Without the parameters' names, which the OpenAPI has its own of."""
        return _PARAMETER.sub("{}", self.pattern)

    def path(self, values: Mapping[str, Any]) -> str:
        """A path; `values` must know every parameter."""
        return _PARAMETER.sub(lambda match: quote(str(values[match[1]]), safe=""), self.pattern)

    def described(self, method: str) -> dict[str, Any] | None:
        """What the OpenAPI says, None if nothing."""
        found: dict[str, Any] | None = _DESCRIBED.get(self.anonymous, {}).get(method.lower())
        return found


@dataclass(frozen=True)
class Operation:
    """A route with one of its methods."""

    method: str
    route: Route

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    @property
    def described(self) -> dict[str, Any]:
        return self.route.described(self.method) or {}

    @property
    def needs_key(self) -> bool:
        return bool(self.described["security"])

    @property
    def body(self) -> dict[str, Any] | None:
        """The schema of the body, None if it takes none."""
        if "requestBody" not in self.described:
            return None
        return resolved(self.described["requestBody"]["content"]["application/json"]["schema"])

    @property
    def query(self) -> list[dict[str, Any]]:
        return [each for each in self.described.get("parameters", []) if each["in"] == "query"]

    def needed_query(self, *but: str) -> str:
        """What must stand in the query string, except for what is given apart."""
        needed = [each["name"] for each in self.query if each.get("required") and each["name"] not in but]
        return "&".join(f"{name}=hello" for name in needed)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it only names another."""
    if "$ref" in schema:
        return resolved(SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if {"type": "null"} in schema.get("anyOf", []):
        inner = resolved(schema["anyOf"][0])
        return {**inner, "type": [inner["type"], "null"]}
    if len(schema.get("allOf", [])) == 1:
        return {**schema, **resolved(schema["allOf"][0])}
    return schema


def _routes(patterns: list[URLPattern | URLResolver], before: str = "/") -> Iterator[Route]:
    for each in patterns:
        here = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from _routes(each.url_patterns, here)
        else:
            yield Route(here)


ALL_ROUTES = list(_routes(get_resolver().url_patterns))
COPILOT = [
    route
    for route in ALL_ROUTES
    if route.pattern.startswith("/copilot")
    and route.pattern not in ("/copilot/panel", "/copilot/app", "/copilot/login", "/copilot/logout")
]
ROUTES = [route for route in ALL_ROUTES if route.pattern != "/" and not route.pattern.startswith(PAGES)]
OPERATIONS = [Operation(method, route) for route in ROUTES for method in METHODS if route.described(method)]
WITH_KEY = [each for each in OPERATIONS if each.needs_key]
SIGNED = {"/webhooks/retell"}  # takes nothing but what its provider signed: it has tests of its own
WITH_BODY = [each for each in OPERATIONS if each.body is not None and str(each.route) not in SIGNED]
ONCE = [each for each in WITH_KEY if each.method == "POST" and not each.route.pattern.startswith("/webhooks")]
WITH_ID = [each for each in OPERATIONS if {"pk", "step_id", "call_id"} & set(each.route.parameters)]

# A body that each operation takes; {client_id} is filled in.
BODIES: dict[str, dict[str, Any]] = {
    "POST /webhooks/<str:channel>/inbound": {"client_id": "{client_id}", "user_id": "bea", "message": "Hello"},
    "POST /webhooks/retell": {"event": "chat_ended", "chat": {"chat_id": "none of ours"}},
    "POST /conversations": {"channel": "sms", "phone": "+51999999997", "variables": {"due_date": "Friday"}},
    "POST /conversations/<uuid:pk>/send": {"role": "ai", "content": "Hello"},
    "POST /conversations/<uuid:pk>/replies": {"turn_token": "a-token-of-the-tests", "messages": ["On its way."]},
    "POST /conversations/<uuid:pk>/close": {"ended_by": "user", "reason": "said goodbye"},
    "POST /conversations/<uuid:pk>/takeover": {"name": "Maria", "tell": True, "from_colleague": False},
    "POST /conversations/<uuid:pk>/handback": {"reason": "settled"},
    "POST /conversations/<uuid:pk>/rating": {"score": 2},
    "POST /conversations/<uuid:pk>/steps": {"description": "Ask the name"},
    "PATCH /conversations/<uuid:pk>/steps/<int:step_id>": {"status": "complete"},
    "POST /conversations/<uuid:pk>/tool-calls/<uuid:call_id>/approve": {"reason": "within the rules"},
    "POST /conversations/<uuid:pk>/tool-calls/<uuid:call_id>/refuse": {"reason": "too much"},
    "POST /api/v1/conversations": {"userId": "+51999999999", "subDomain": "shop"},
    "PATCH /api/v1/conversations/<uuid:pk>/intent": {"intent": "order", "step": "cart"},
    "PATCH /api/v1/conversations/<uuid:pk>/context": {"context": {"orderTotal": 20}, "merge": True},
    "POST /api/v1/conversations/<uuid:pk>/messages": {"role": "user", "content": "Hello"},
    "POST /api/v1/conversations/<uuid:pk>/reset": {"keepHistory": True},
    "POST /api/v1/conversations/<uuid:pk>/extend": {"hours": 48},
    "POST /api/v1/conversations/<uuid:pk>/orders": {"orderId": "o1"},
    "POST /api/v1/conversations/<uuid:pk>/end": {},
    "PUT /api/v1/whatsapp/agent/conversations/<uuid:pk>/sync": {"intent": "order", "context": {"orderTotal": 20}},
    "POST /api/v1/whatsapp/agent/conversations/<uuid:pk>/messages": {"role": "bot", "content": "Hello"},
}


def good_body(operation: Operation, client_id: Any) -> dict[str, Any] | None:
    """A body that the operation takes; a new operation needs a line in BODIES."""
    if operation.body is None:
        return None
    body = dict(BODIES[str(operation)])
    return {name: str(client_id) if value == "{client_id}" else value for name, value in body.items()}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def in_a_transaction() -> AbstractContextManager[Any]:
    """Inside, a test's transaction does not look to the application like a connection left in disorder; Django's own
    test client does the like."""
    return mock.patch.object(connections["default"], "close_if_unusable_or_obsolete", _is_left_alone)


def _is_left_alone() -> None:
    pass


@dataclass
class WebServer:
    """Hands requests to the web application as a web server does."""

    key: str = ""
    application: Callable[..., Any] = APPLICATION
    environ: dict[str, str] = field(default_factory=dict)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str | None = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`body` as it is if bytes, else as JSON; header values as latin-1 text, as WSGI has them."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            **RequestFactory()._base_environ(),
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(raw)),
            "wsgi.input": io.BytesIO(raw),
            **self.environ,
        }
        if content_type is not None and body is not None:
            environ["CONTENT_TYPE"] = content_type
        given = {"X-Service-API-Key": self.key} if self.key and headers is None else dict(headers or {})
        environ |= {"HTTP_" + name.upper().replace("-", "_"): value for name, value in given.items()}
        started: list[Any] = []
        with in_a_transaction():
            answer = self.application(environ, lambda status, headers, *_: started.append((status, headers)))
            try:
                content = b"".join(answer)
            finally:
                getattr(answer, "close", lambda: None)()
        [(status, answered)] = started
        return Answer(int(status.split()[0]), dict(answered), content)


def assert_failure(answer: Answer, *statuses: int, code: str = "") -> None:
    """It is a failure of one of these statuses, in the envelope and no more."""
    assert answer.status in statuses, (answer.status, answer.body[:300])
    assert answer.headers["Content-Type"] == "application/json"
    envelope = answer.json
    assert envelope.keys() in ({"success", "error", "code"}, {"success", "error", "code", "details"}), envelope
    assert envelope["success"] is False
    assert re.fullmatch(r"[a-z_]+", envelope["code"])
    assert len(envelope["error"]) > 10
    assert isinstance(envelope.get("details", {}), dict)
    assert not code or envelope["code"] == code, envelope
    if answer.status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if answer.status == 405:
        assert answer.headers["Allow"]


def written() -> dict[str, tuple[int, str]]:
    """Every table's number of rows and a hash over them. When a key was last used, when a user was last seen and how
    many signatures were refused do not count."""
    tables = sorted(set(connection.introspection.table_names()) - {"django_migrations", "refused_webhooks"})
    looks = []
    left_out = {"api_keys": "{last_used_at}", "django_session": "{session_data,expire_date}"}
    for table in tables:
        row = f"(to_jsonb(t) - '{left_out[table]}'::text[])::text" if table in left_out else "t::text"
        looks.append(f"SELECT '{table}', count(*), md5(string_agg({row}, '|' ORDER BY {row})) FROM {table} t")
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks))
        return {table: (count, str(digest)) for table, count, digest in cursor.fetchall()}
