"""The schemas of tools' arguments: what is accepted, and that nobody can stop a process with one."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest

from conversations.engines.tool_schemas import (
    InvalidSchemaError,
    canonical,
    check_schema,
    problem_with,
    read_arguments,
)
from conversations.services.replies.tool_calls import idempotency_key
from tests.fakes.paid_tool import SCHEMA


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = of(a=schema)
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """A schema that is small, and huge once its references are followed."""
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {**of(x={"$ref": "#/$defs/a0"}), "$defs": {**parts, f"a{levels}": {"type": "string"}}}


GOOD = [
    SCHEMA,
    {"type": "object"},
    {**of(x={"$ref": "#/$defs/x"}), "$defs": {"x": {"type": "integer"}}},
    of(x={"type": "string", "pattern": "^[A-Z]{2}\\d+$"}),
    of(pattern={"type": "string"}),
]
BAD = [
    (None, "Write a JSON Schema of an object"),
    ([], "Write a JSON Schema of an object"),
    ({"type": "string"}, "Write a JSON Schema of an object"),
    ({"type": "object", "properties": 5}, "This is no JSON Schema (draft 2020-12): at properties."),
    (of(x={"type": "strong"}), "This is no JSON Schema"),
    (of(x={"$ref": "https://evil.example/x.json"}), "A $ref may only refer to a part of the same schema"),
    (of(x={"$ref": "file:///etc/passwd"}), "A $ref may only refer to a part of the same schema"),
    (of(x={"$ref": "#/$defs/none"}), "refers to a part that does not exist"),
    ({"type": "object", "$ref": "#"}, "refers to itself"),
    ({**of(x={"$ref": "#/$defs/x"}), "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}, "refers to itself"),
    (doubling(40), "refers to its own parts too often"),
    (deep(2_000), "nested too deeply"),
    (of(x={"description": "x" * 20_000}), "At most 20,000 are possible"),
    (of(x={"type": "string", "pattern": "(?=a)b"}), "is not one of RE2"),
    ({"type": "object", "patternProperties": {"(a+)+$": {}}}, "uses patternProperties"),
]


@pytest.mark.parametrize("schema", GOOD, ids=range(len(GOOD)))
def test_a_schema_of_an_object_is_accepted(schema):
    check_schema(schema)


@pytest.mark.parametrize(("schema", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_what_cannot_be_checked_safely_is_refused_with_a_sentence_and_soon(schema, sentence):
    begun = time.monotonic()
    with pytest.raises(InvalidSchemaError) as caught:
        check_schema(schema)
    assert sentence in str(caught.value)
    assert time.monotonic() - begun < 15


def test_a_pattern_that_would_take_others_for_ever_takes_a_moment():
    schema = of(x={"type": "string", "pattern": "(a+)+$"})
    check_schema(schema)
    begun = time.monotonic()
    assert problem_with({"x": "a" * 5_000 + "b"}, schema)
    assert time.monotonic() - begun < 15
    assert problem_with({"x": "a" * 5_000}, schema) == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"order": "1", "amount": 5}, ""),
        ({"order": "1"}, "The arguments do not match: arguments: 'amount' is a required property."),
        ({"order": 1, "amount": 5}, "The arguments do not match: arguments.order: 1 is not of type 'string'."),
        ({"order": "1", "amount": 0}, "The arguments do not match: arguments.amount: 0 is less than or equal to"),
    ],
)
def test_a_model_is_told_what_is_wrong(arguments, problem):
    found = problem_with(arguments, SCHEMA)
    assert found.startswith(problem)
    assert bool(found) is bool(problem)


def test_a_long_value_makes_no_long_sentence():
    assert len(problem_with({"order": "x" * 9_000, "amount": 1}, SCHEMA)) < 400


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", '{"a": NaN}', '{"a": [1e999]}', "[" * 9_000, "x" * 10_001])
def test_what_is_no_object_of_finite_numbers_is_not_read(text):
    assert read_arguments(text, 10_000) is None


def test_equal_arguments_have_one_canonical_form_and_one_key():
    same = [
        '{"b": 1.0, "a": [1000, {"z": null}]}',
        '{"a":[1e3,{"z":null}],"b":1}',
        '{ "a": [1000.0, {"z": null}], "b": 1}',
    ]
    read = [read_arguments(each, 1_000) or {} for each in same]
    assert {canonical(each) for each in read} == {'{"a":[1000,{"z":null}],"b":1}'}
    other = read_arguments('{"a": [1000, {"z": null}], "b": 1.5}', 1_000) or {}
    conversation, round_, tool = uuid4(), uuid4(), uuid4()
    assert len({idempotency_key(conversation, round_, tool, each) for each in read}) == 1
    keys = {
        idempotency_key(conversation, round_, tool, read[0]),
        idempotency_key(conversation, round_, tool, other),
        idempotency_key(conversation, None, tool, read[0]),
        idempotency_key(conversation, round_, uuid4(), read[0]),
        idempotency_key(uuid4(), round_, tool, read[0]),
    }
    assert len(keys) == 5
