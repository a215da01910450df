"""The OpenAPI names every route, shows the envelope, and is shown to anybody without a look outside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from django.contrib.staticfiles import finders
from django.test import Client as HttpClient
from drf_spectacular.validation import validate_schema

from tests.routes import (
    ALL_ROUTES,
    COPILOT,
    METHODS,
    OPERATIONS,
    PAGES,
    ROUTES,
    SCHEMA,
    Operation,
    Route,
    WebServer,
    good_body,
    resolved,
)

PEOPLE = ("/admin/", "/copilot", "/cron/")


def described() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in SCHEMA["paths"].items() for method, one in methods.items()]


def test_it_is_valid() -> None:
    validate_schema(SCHEMA)


def test_it_names_every_route_and_no_other() -> None:
    assert {re.sub(r"\{\w+\}", "{}", path) for path in SCHEMA["paths"]} == {
        route.anonymous for route in [*ROUTES, *COPILOT]
    }
    left_out = {route.pattern for route in ALL_ROUTES} - {route.pattern for route in ROUTES}
    assert {pattern for pattern in left_out if not pattern.startswith(PEOPLE)} == {
        "/",
        "/docs/",
        "/schema/",
        "/media/<str:token>",
        "/mail/unsubscribe/<str:token>",
        "/words/<str:language>.js",
        "/simulator/<uuid:pk>",
        "/simulator/<uuid:pk>/<path:rest>",
        "/metrics",
    }
    assert PAGES == (
        "/admin",
        "/docs",
        "/schema",
        "/simulator",
        "/copilot",
        "/cron",
        "/metrics",
        "/media",
        "/mail",
        "/words",
    )


@pytest.mark.django_db
@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_it_names_every_method_and_no_other(route: Route, server: WebServer, ids: dict[str, Any]) -> None:
    taken = {method for method in METHODS if server.call(method, route.path(ids)).status != 405}
    assert {method for method in METHODS if route.described(method)} == taken


def test_operations_have_names_of_their_own() -> None:
    names = [one["operationId"] for _, _, one in described()]
    assert len(names) == len(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z_]+", name)] == []
    for field in ("description", "tags"):
        assert [one["operationId"] for _, _, one in described() if not one[field]] == [], field


def test_no_component_is_named_by_a_number() -> None:
    assert [name for name in SCHEMA["components"]["schemas"] if re.search(r"[0-9]|Enum", name)] == []
    text = str(SCHEMA)
    assert [name for name in SCHEMA["components"]["schemas"] if f"schemas/{name}'" not in text] == []


def test_it_says_how_to_show_a_key() -> None:
    schemes = SCHEMA["components"]["securitySchemes"]
    assert schemes["ServiceKey"] == {"type": "apiKey", "in": "header", "name": "X-Service-API-Key"}
    assert schemes["BearerKey"] == {"type": "http", "scheme": "bearer"}
    open_to_all = {f"{method} {path}" for path, method, one in described() if not one["security"]}
    assert open_to_all == {
        *("get /healthz", "get /readyz", "get /webhooks/{channel}/inbound"),
        *("get /webhooks/{channel}/status", "post /webhooks/{channel}/status"),
        "post /webhooks/retell",
    }
    by_key = ([], [{"ServiceKey": []}, {"BearerKey": []}])
    for path, method, one in described():
        assert path.startswith("/copilot") or one["security"] in by_key, (method, path)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_answer_is_an_envelope(operation: Operation) -> None:
    for status, response in operation.described["responses"].items():
        if "text/plain" in response["content"]:
            assert (str(operation.route), status) == ("/webhooks/<str:channel>/inbound", "200")
            continue
        schema = resolved(response["content"]["application/json"]["schema"])
        if status < "300":
            assert schema["required"] == ["success", "data"]
            assert schema["properties"]["success"]["enum"] == [True]
            assert schema["properties"]["data"] not in ({}, None)
        else:
            assert schema["required"] == ["success", "error", "code"]
            assert schema["properties"].keys() == {"success", "error", "code", "details"}
        assert response["description"] or status < "300"


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_kind_of_failure_is_named(operation: Operation) -> None:
    expected = {"405", "500"}
    if operation.needs_key:
        expected |= {"400", "401", "429", "503"}
    if operation.route.parameters or str(operation) == "POST /conversations":  # which may name a client
        expected |= {"404"}
    if operation.route.pattern.endswith("/status"):  # open to providers, who sign
        expected |= {"400", "401"} | ({"413"} if operation.method == "POST" else set())
    if operation.body is not None:
        expected |= {"400", "413", "415"}
    once = operation.method == "POST" and not operation.route.pattern.startswith("/webhooks")
    if once or (operation.body is not None and "pk" in operation.route.parameters):
        expected |= {"409"}
    named = {status for status in operation.described["responses"] if status >= "400"}
    assert named - {"403", "503"} == expected - {"503"}


def test_lists_say_how_to_go_on() -> None:
    for path in ("/conversations", "/conversations/{id}/chunks"):
        data = SCHEMA["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
        assert data["data"]["required"] == ["items", "next"]
        assert data["data"]["properties"]["next"] == {"type": ["string", "null"]}


@pytest.mark.django_db
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.needs_key], ids=str)
def test_what_an_answer_holds_is_described(
    operation: Operation, server: WebServer, ids: dict[str, Any], shop: Any
) -> None:
    answer = server.call(
        operation.method, f"{operation.route.path(ids)}?{operation.needed_query()}", good_body(operation, shop.pk)
    )
    assert str(answer.status) in operation.described["responses"]
    said, *_ = [one for status, one in operation.described["responses"].items() if status < "300"]
    data = resolved(said["content"]["application/json"]["schema"]["properties"]["data"])
    for schema in data.get("anyOf", [data])[:1]:
        assert set(answer.json["data"]) == set(schema["properties"]) == set(schema["required"])


# --- shown to anybody -------------------------------------------------------------------------------------------------
def test_the_description_is_served_to_anybody() -> None:
    answer = HttpClient().get("/schema/?version=%0a&lang=%00")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == SCHEMA
    assert HttpClient().post("/schema/").status_code == 405


def test_the_pages_load_nothing_from_outside(settings: Any) -> None:
    page = HttpClient().get("/docs/")
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    html = page.content.decode()
    places = re.findall(r"""(?:src|href)=["']([^"']*)["']""", html)
    assert len(places) == 5
    script = HttpClient().get("/docs/?script=").content.decode()
    assert "SwaggerUIBundle(" in script
    assert re.findall(r'url: "([^"]*)"', script) == [r"/schema/"]
    for text in (html, script):
        assert not re.search(r"https?:|[\"'(]//", text)
    for place in places:
        assert place.startswith("/")
        if place.startswith(settings.STATIC_URL):
            found = finders.find(unquote(place.removeprefix(settings.STATIC_URL)))
            assert found, place
            assert Path(found).stat().st_size > 0
            assert HttpClient().get(place).status_code == 200
        else:
            assert HttpClient().get(place)["Content-Type"].startswith("application/javascript")


@pytest.mark.parametrize("lang", ['"><script>alert(1)</script>', "</script>", "';alert(1)//", "\n", "\0"])
def test_what_the_address_says_runs_nowhere(lang: str) -> None:
    for path in ("/docs/", "/docs/?script="):
        page = HttpClient().get(path, {"lang": lang, "version": lang, **({"script": ""} if "script" in path else {})})
        assert page.status_code == 200
        assert "alert(1)" not in page.content.decode().replace("%20", "").replace("alert%281%29", "")
        assert page.content.count(b"</script>") == (3 if path == "/docs/" else 0)
