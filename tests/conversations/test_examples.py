"""`/docs/` shows every route with a summary and an example that fits its schema, in the order of `examples.ROUTES`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conversations.api.examples import ROUTES, TAGS
from tests.routes import SCHEMA

NAMED = {one["operationId"]: one for methods in SCHEMA["paths"].values() for one in methods.values()}


def as_json_schema(schema: Any) -> Any:
    """The schema with its references resolved."""
    if isinstance(schema, list):
        return [as_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return as_json_schema(SCHEMA["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return {name: as_json_schema(value) for name, value in schema.items()}


def assert_fits(example: Any, schema: Any) -> None:
    jsonschema.Draft7Validator(as_json_schema(schema)).validate(example)


def test_every_route_has_a_line_and_no_line_is_left_over() -> None:
    assert set(ROUTES) == set(NAMED)


def test_routes_stand_in_the_order_in_which_people_meet_them() -> None:
    assert [tag["name"] for tag in SCHEMA["tags"]] == list(TAGS)
    assert list(TAGS)[:7] == ["webhooks", "conversations", "steps", "tools", "memory", "copilot", "sync"]
    order = [one["tags"][0] for one in NAMED.values()]
    assert order == sorted(order, key=list(TAGS).index)
    assert next(iter(SCHEMA["paths"])) == "/webhooks/{channel}/inbound"


@pytest.mark.parametrize("name", NAMED)
def test_it_has_a_summary_a_description_and_a_group(name: str) -> None:
    one = NAMED[name]
    assert 5 < len(one["summary"]) <= 50, one["summary"]
    assert not one["summary"].endswith(".")
    assert one["description"].endswith((".", "`.")), one["description"]
    assert one["tags"] == [ROUTES[name].tag]


@pytest.mark.parametrize("name", [name for name, one in NAMED.items() if "requestBody" in one])
def test_its_request_fits_the_schema(name: str) -> None:
    content = NAMED[name]["requestBody"]["content"]["application/json"]
    assert_fits(content["example"], content["schema"])


@pytest.mark.parametrize("name", NAMED)
def test_its_response_fits_the_schema(name: str) -> None:
    answers = NAMED[name]["responses"]
    content = answers[min(status for status in answers if status < "300")]["content"]
    kind, first = next(iter(content.items()))
    if kind == "application/json":
        assert_fits(first["example"], first["schema"])
    else:
        assert isinstance(first["example"], str)


def test_the_description_names_the_version_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert SCHEMA["info"]["version"] == project["version"]
