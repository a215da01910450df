"""Whatever is sent to whichever route: the documented failure in its envelope, never a 500, and nothing written.

Routes come from the URL resolver and fields from the OpenAPI, so that a new route is tested without a word here (but
for a good body of its own: `tests.routes.BODIES`).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from conversations.http import auth
from conversations.models import ApiKey, Client
from conversations.services.tenants import api_keys
from tests.routes import (
    METHODS,
    OPERATIONS,
    ROUTES,
    WITH_BODY,
    WITH_KEY,
    Operation,
    Route,
    WebServer,
    assert_failure,
    good_body,
    resolved,
    written,
)

pytestmark = pytest.mark.django_db


def of(operation: Operation) -> str:
    return str(operation)


@pytest.fixture
def keys(shop: Client, key: str, neighbour: Client) -> dict[str, str]:
    """A good key and its prefix, a revoked one, and one of a client that is switched off."""
    revoked, revoked_key = api_keys.create_api_key(shop, "revoked")
    ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())
    _, inactive_key = api_keys.create_api_key(neighbour, "inactive")
    Client.objects.filter(pk=neighbour.pk).update(is_active=False)
    return {"good": key, "prefix": key[:12], "revoked": revoked_key, "inactive": inactive_key}


@pytest.fixture(autouse=True)
def _nothing_written(ids: dict[str, Any], keys: dict[str, str]) -> Any:
    """Around every test here."""
    before = written()
    yield
    assert written() == before


# --- bodies that are no JSON object -----------------------------------------------------------------------------------
def within(text: bytes) -> bytes:
    """An object that holds this text, beside what every route needs; the parser must stumble over it."""
    return b'{"x": ' + text + b"}"


UNREADABLE = {
    "cut": b'{"message": "Hel',
    "words": b"hello=world",
    "no object but an array": b"[]",
    "no object but an array of one": b'[{"content": "Hello", "description": "Hello", "status": "complete"}]',
    "no object but a string": b'"Hello"',
    "no object but a number": b"1",
    "no object but true": b"true",
    "no object but null": b"null",
    "two objects": b"{}{}",
    "a trailing comma": b'{"x": 1,}',
    "NUL": within(b'"a\\u0000b"'),
    "NUL in a name": b'{"a\\u0000b": 1}',
    "NUL, deep": within(b"[" * 90 + b'"\\u0000"' + b"]" * 90),
    "NUL byte": within(b'"a\x00b"'),
    "lone surrogate": within(b'"\\ud83d"'),
    "lone low surrogate": within(b'"\\ude00"'),
    "surrogates the wrong way round": within(b'"\\ude00\\ud83d"'),
    "surrogate in UTF-8": within(b'"\xed\xa0\xbd"'),
    "invalid UTF-8": within(b'"\xff\xfe"'),
    "overlong UTF-8": within(b'"\xc0\xaf"'),
    "UTF-16": '{"x": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": within(b"NaN"),
    "Infinity": within(b"-Infinity"),
    "a number without end": within(b"1e400"),
    "5000 digits": within(b"1" * 5000),
    "nested": within(b"[" * 100 + b"]" * 100),
    "nested objects": b'{"x":' * 600 + b"1" + b"}" * 600,
    "nested without end": b"[" * 100_000,
    "nested, and NUL": within(b"[" * 900 + b'"\\u0000"' + b"]" * 900),
}


@pytest.mark.parametrize("operation", WITH_BODY, ids=of)
def test_what_is_no_json_object_is_refused(
    operation: Operation, server: WebServer, ids: dict[str, Any], subtests: pytest.Subtests
) -> None:
    for name, body in UNREADABLE.items():
        with subtests.test(name):
            answer = server.call(operation.method, operation.route.path(ids), body)
            assert_failure(answer, 400, code="malformed")


@pytest.mark.parametrize("operation", [each for each in WITH_BODY if (each.body or {}).get("required")], ids=of)
def test_an_empty_body_is_refused(operation: Operation, server: WebServer, ids: dict[str, Any]) -> None:
    for body in (b"", b" ", b"{}"):
        assert_failure(server.call(operation.method, operation.route.path(ids), body), 400)


@pytest.mark.parametrize("operation", WITH_BODY, ids=of)
def test_four_megabytes_are_refused(operation: Operation, server: WebServer, ids: dict[str, Any]) -> None:
    body = json.dumps({"message": "x" * 4_000_000}).encode()
    assert_failure(server.call(operation.method, operation.route.path(ids), body), 413, code="too_large")
    server.key = ""
    # The webhook is open to providers: it looks at the size before it looks for a key.
    assert_failure(server.call(operation.method, operation.route.path(ids), body), 401, 413)


@pytest.mark.parametrize("operation", WITH_BODY, ids=of)
def test_what_is_not_said_to_be_json_is_refused(
    operation: Operation, server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    body = good_body(operation, shop.pk)
    for said in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "",
        None,
    ):
        answer = server.call(operation.method, operation.route.path(ids), body, content_type=said)
        assert_failure(answer, 415, code="unsupported_media_type")


# --- fields -----------------------------------------------------------------------------------------------------------
def bad_values(schema: dict[str, Any]) -> list[Any]:
    """Values of every other type, and of the right one but outside its bounds."""
    schema = resolved(schema)
    may_be_null = "null" in schema["type"]
    schema = {**schema, "type": schema["type"][0] if may_be_null else schema["type"]}
    wrong: list[Any] = [0, 1.5, 10**30, True, False, [[["x"]]], *([["x"]] if schema["type"] != "array" else [])]
    if not may_be_null:
        wrong.append(None)
    if schema["type"] != "object":
        wrong += [{}, {"x": "y"}]
    if schema["type"] == "boolean":
        return [*(each for each in wrong if not isinstance(each, bool)), "x", ""]
    if schema["type"] == "integer":
        return [*wrong, "x", "", "1.5", schema["maximum"] + 1]
    if schema["type"] != "string":
        return [*wrong, "x", ""]
    if "enum" in schema:
        return [*wrong, "", "nonsense", schema["enum"][0] + " ", "x" * 10_000]
    if schema.get("pattern"):
        wrong += ["", " ", "\n\t"]
    if "maxLength" in schema:
        wrong.append("x" * (schema["maxLength"] + 1))
    if schema.get("format") == "phone":
        wrong += ["nonsense", "12", "+1", "+51 999", "5" * 40]
    return wrong


def fields() -> list[Any]:
    return [
        pytest.param(operation, name, bad_values(schema), id=f"{operation} {name}")
        for operation in WITH_BODY
        for name, schema in (operation.body or {})["properties"].items()
    ]


@pytest.mark.parametrize(("operation", "name", "values"), fields())
def test_a_field_of_another_kind_is_refused_by_name(
    operation: Operation,
    name: str,
    values: list[Any],
    server: WebServer,
    ids: dict[str, Any],
    shop: Client,
    subtests: pytest.Subtests,
) -> None:
    for value in values:
        with subtests.test(str(value)[:50]):
            body = {**(good_body(operation, shop.pk) or {}), name: value}
            answer = server.call(operation.method, operation.route.path(ids), body)
            assert_failure(answer, 400, code="invalid")
            assert list(answer.json["details"]) == [name]
            assert name in answer.json["error"]
            assert len(answer.body) < 1_000, "it does not repeat what was sent"


def required() -> list[Any]:
    return [
        pytest.param(operation, name, id=f"{operation} {name}")
        for operation in WITH_BODY
        for name in (operation.body or {}).get("required", [])
    ]


@pytest.mark.parametrize(("operation", "name"), required())
def test_a_missing_field_is_named(
    operation: Operation, name: str, server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    body = good_body(operation, shop.pk) or {}
    del body[name]
    answer = server.call(operation.method, operation.route.path(ids), body)
    assert_failure(answer, 400, code="invalid")
    assert list(answer.json["details"]) == [name]


def bad_queries() -> list[Any]:
    anything = ["", "%00", "x" * 5_000]
    by_type = {
        "integer": ["x", "-1", "1.5", "1e3", "NaN", "9" * 20, "9" * 2_000, "%ED%A0%80", "1%00"],
        "date-time": ["x", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00", "9" * 20, "1767225600"],
        "enum": ["nonsense", "ACTIVE", "active,stale", "x" * 300],
        "cursor": ["nonsense", "-1", "%FF%FE", "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OXx4", "9" * 30, "fA", "é"],
    }
    found = []
    for operation in OPERATIONS:
        for parameter in operation.query:
            schema, name = resolved(parameter["schema"]), parameter["name"]
            if not operation.needs_key:
                continue
            kind = name if name == "cursor" else "enum" if "enum" in schema else schema.get("format", schema["type"])
            values = [*anything, *by_type.get(kind if isinstance(kind, str) else kind[0], [])]
            found.append(pytest.param(operation, name, values, id=f"{operation} {name}"))
    return found


@pytest.mark.parametrize(("operation", "name", "values"), bad_queries())
def test_a_parameter_that_makes_no_sense_is_refused_by_name(
    operation: Operation,
    name: str,
    values: list[str],
    server: WebServer,
    ids: dict[str, Any],
    subtests: pytest.Subtests,
) -> None:
    path = f"{operation.route.path(ids)}?{operation.needed_query(name)}"
    for value in values:
        with subtests.test(value[:50]):
            answer = server.call(operation.method, f"{path}&{name}={value}")
            assert_failure(answer, 400, code="invalid")
            assert list(answer.json["details"]) == [name]


# --- paths ------------------------------------------------------------------------------------------------------------
NO_IDS = {
    "pk": [
        "x",
        "1",
        "%00",
        "00000000-0000-0000-0000-00000000000",
        "0" * 32,
        "g" * 36,
        "..",
        "é",
        "\\",
        "'--",
        "x" * 9_000,
    ],
    "step_id": ["x", "-1", "0", "1.5", "99999999999999999999", "9223372036854775807", "9" * 5_000, "²", "%00", "1e3"],
    "phone": ["x", "1", "%00", "12", "+1", "%2B", "5" * 40, "+51%00999999999", "é", "..", "'--", "x" * 9_000],
    "channel": ["web", "fax", "SMS", "%00", "sms%00", "é", "sms ", "x" * 9_000, "'--"],
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=of)
def test_an_id_that_is_none_is_a_404(
    operation: Operation, server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    for name in operation.route.parameters:
        for value in NO_IDS["pk" if name == "call_id" else name]:
            path = operation.route.path({**ids, name: "PLACE"}).replace("PLACE", value)
            answer = server.call(operation.method, path, good_body(operation, shop.pk))
            assert_failure(answer, 404)


NOWHERE = [
    "/",
    "/conversations/",
    "//conversations",
    "/webhooks",
    "/webhooks/sms",
    "/%00",
    "/é",
    "/%FF",
    "/..",
    "/docs",
]


def test_what_is_no_route_is_a_404(server: WebServer) -> None:
    for path in NOWHERE:
        for method in METHODS:
            answer = server.call(method, path, {} if method != "GET" else None)
            assert_failure(answer, 404, code="not_found")


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_another_method_is_a_405(route: Route, server: WebServer, ids: dict[str, Any]) -> None:
    allowed = {method for method in METHODS if route.described(method)}
    for method in {*METHODS, "OPTIONS", "TRACE", "NONSENSE"} - allowed:
        answer = server.call(method, route.path(ids), {} if method in ("POST", "PUT", "PATCH") else None)
        assert_failure(answer, 405, code="method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == allowed
        assert [name for name in (method, *allowed) if name not in answer.json["error"]] == []


# --- keys -------------------------------------------------------------------------------------------------------------
NO_KEYS = [
    {},
    {"X-Service-API-Key": ""},
    {"X-Service-API-Key": "  "},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Basic Y29udm86Y29udm8="},
]
WRONG_KEYS = [
    {"X-Service-API-Key": "convo_wrong"},
    {"X-Service-API-Key": "\xff\xfe"},
    {"X-Service-API-Key": "x" * 50_000},
    {"X-Service-API-Key": "{good} {good}"},
    {"X-Service-API-Key": "{prefix}"},
    {"Authorization": "Bearer convo_wrong"},
    {"Authorization": "Bearer \xe9"},
    {"X-Service-API-Key": "convo_wrong", "Authorization": "Bearer {good}"},
    {"X-Service-API-Key": "{revoked}"},
    {"Authorization": "Bearer {revoked}"},
    {"X-Service-API-Key": "{inactive}"},
]


@pytest.mark.parametrize("operation", WITH_KEY, ids=of)
def test_without_a_key_one_is_asked_for(
    operation: Operation, server: WebServer, ids: dict[str, Any], shop: Client
) -> None:
    body = good_body(operation, shop.pk)
    for headers in NO_KEYS:
        answer = server.call(operation.method, operation.route.path(ids), body, headers=headers)
        assert_failure(answer, 401, code="not_authenticated")
        assert answer.json["error"].startswith(auth.NO_KEY)


@pytest.mark.parametrize("operation", WITH_KEY, ids=of)
def test_a_wrong_key_is_refused(
    operation: Operation, server: WebServer, keys: dict[str, str], ids: dict[str, Any], shop: Client
) -> None:
    body = good_body(operation, shop.pk)
    for headers in WRONG_KEYS:
        given = {name: value.format(**keys) for name, value in headers.items()}
        answer = server.call(operation.method, operation.route.path(ids), body, headers=given)
        assert_failure(answer, 401, code="authentication_failed")
        assert answer.json["error"] == auth.WRONG_KEY


@pytest.mark.parametrize("operation", WITH_BODY, ids=of)
def test_who_has_no_key_learns_nothing_of_the_body(
    operation: Operation, server: WebServer, ids: dict[str, Any]
) -> None:
    for server.key in ("", "convo_wrong"):
        for body in (b"{", b"[]", b"{}", b'{"client_id": 5}'):
            assert_failure(server.call(operation.method, operation.route.path(ids), body), 401)


# --- providers --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channel", ["whatsapp", "sms"])
def test_what_only_looks_like_a_provider_s_is_refused(
    channel: str, server: WebServer, ids: dict[str, Any], subtests: pytest.Subtests
) -> None:
    for name, body in {**UNREADABLE, "nothing": b"", "no payload": b"{}", "empty": b'{"entry": []}'}.items():
        for signature in ("", "sha256=" + "0" * 64, "sha256=\xff" + "0" * 63):
            with subtests.test(f"{name} {signature[:10]}"):
                headers = {"X-Hub-Signature-256": signature}
                answer = server.call("POST", f"/webhooks/{channel}/inbound", body, headers=headers)
                assert_failure(answer, *([400, 403] if channel == "whatsapp" else [401]))


@pytest.mark.parametrize(
    ("channel", "header"),
    [
        ("whatsapp", "X-Convo-Secret or X-Hub-Signature-256"),
        ("messenger", "X-Hub-Signature-256"),
        ("sms", "X-Plivo-Signature-V3"),
        ("voice", "X-Plivo-Signature-V3"),
        ("orb", "Webhook-Signature"),
    ],
)
def test_who_posts_a_provider_s_payload_unsigned_is_told_what_is_missing(
    channel: str, header: str, server: WebServer
) -> None:
    answer = server.call("POST", f"/webhooks/{channel}/inbound", {"object": "page", "entry": []}, headers={})
    assert_failure(answer, 401, code="not_authenticated")
    assert answer.json["error"].endswith(f"in the header {header}.")


@pytest.mark.parametrize("channel", ["messenger", "whatsapp", "sms", "orb", "voice"])
def test_what_is_no_handshake_is_refused(channel: str, server: WebServer) -> None:
    for query in (
        "",
        "x=1",
        "hub.mode=subscribe",
        "hub.mode=subscribe&hub.verify_token=&hub.challenge=1",
        "hub.mode=subscribe&hub.verify_token=x&hub.challenge=1",
        "hub.mode=%00&hub.verify_token=%FF%FE&hub.challenge=<script>",
        "hub.mode=" + "x" * 5_000,
    ):
        answer = server.call("GET", f"/webhooks/{channel}/inbound?{query}")
        assert_failure(answer, 403, code="handshake_refused")


# --- fields of a send that are not known ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["media", "buttons", "Content", "role ", "\u0161" * 300])
def test_a_send_with_a_field_that_it_does_not_know_is_refused_and_names_it(server: WebServer, ids, name: str) -> None:
    body = {"role": "ai", "content": "Here is the picture.", name: {"url": "https://x.example/a.png"}}
    answer = server.call("POST", f"/conversations/{ids['pk']}/send", body)
    assert_failure(answer, 400)
    assert answer.json["details"] == {name[:100]: ["This field is not supported."]}
