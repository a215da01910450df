"""The JSON Schemas of tools' arguments: which ones are accepted, and whether arguments fit one.

A schema and arguments come from two parties who need not wish us well: the schema is bounded in size, also where it
refers to parts of itself many times over, refers to nothing outside itself, and its patterns are run by RE2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2
from django.utils.translation import gettext
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend

from conversations.words import whole

LONGEST_SCHEMA = 20_000  # characters of JSON
MOST_PARTS = 5_000  # of a schema in which every reference is replaced by what it refers to
DEEPEST_ARGUMENTS = 50  # objects and lists within each other
LONGEST_PROBLEM = 300
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_REFUSED = ("patternProperties", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor")


class InvalidSchemaError(ValueError):
    """A schema is refused. The message is a sentence for staff."""


def check_schema(schema: Any) -> None:
    """Return if the value is a JSON Schema that tools can have. Raises InvalidSchemaError."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise InvalidSchemaError(gettext('Write a JSON Schema of an object: {"type": "object", "properties": {…}}.'))
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError):
        raise InvalidSchemaError(gettext("The schema is not JSON, or is nested too deeply.")) from None
    if size > LONGEST_SCHEMA:
        raise InvalidSchemaError(
            gettext("The schema has %(size)s characters. At most %(most)s are possible.")
            % {"size": whole(size), "most": whole(LONGEST_SCHEMA)}
        )
    try:
        Draft202012Validator.check_schema(schema)
        _check_parts(schema)
    except SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path)[:80]
        said = gettext("This is no JSON Schema (draft 2020-12).")
        if where:
            said = gettext("This is no JSON Schema (draft 2020-12): at %(where)s.") % {"where": where}
        raise InvalidSchemaError(said) from None
    except RecursionError:
        raise InvalidSchemaError(gettext("The schema is nested too deeply.")) from None


def problem_with(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the sentence that tells a model what is wrong with the arguments, '' if they fit the schema."""
    try:
        error = next(iter(_errors(arguments, schema)), None)
    except RecursionError:
        return "The arguments are nested too deeply."
    if error is None:
        return ""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"The arguments do not match: arguments{where[:100]}: {error.message[:LONGEST_PROBLEM]}."


def read_arguments(text: str, longest: int) -> dict[str, Any] | None:
    """Return the object that the JSON text holds; None if it is none, too long, too deep, or has NaN or Infinity."""
    if len(text) > longest:
        return None
    try:
        given = json.loads(text or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) and _is_plain(given) else None


def canonical(arguments: Mapping[str, Any]) -> str:
    """Return the arguments as JSON in which equal ones are the same text: keys sorted, no blanks, 1.0 as 1.

    Source: RFC 8785, as far as our arguments need it.
    """
    return json.dumps(_normal(arguments), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _normal(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _is_plain(value: Any, depth: int = 1) -> bool:
    """Return whether all numbers are finite (1e999 is read as infinity) and nothing is nested too deeply."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return depth <= DEEPEST_ARGUMENTS and all(_is_plain(each, depth + 1) for each in parts)
    return not isinstance(value, float) or math.isfinite(value)


# --- the parts of a schema --------------------------------------------------------------------------------------------
def _check_parts(schema: dict[str, Any]) -> None:
    for name, value in _members(schema):
        if name in _REFUSED:
            raise InvalidSchemaError(gettext("The schema uses %(name)s, which is not supported here.") % {"name": name})
        if name == "$ref" and not (isinstance(value, str) and (value == "#" or value.startswith("#/"))):
            raise InvalidSchemaError(
                gettext("A $ref may only refer to a part of the same schema, such as #/$defs/item.")
            )
        if name == "pattern" and isinstance(value, str) and _compiled(value) is None:
            raise InvalidSchemaError(gettext("A pattern of the schema is not one of RE2, by which it would be run."))
    if _size(schema, schema, ()) > MOST_PARTS:
        raise InvalidSchemaError(gettext("The schema refers to its own parts too often."))


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every (name, value) of every object in the schema; names of properties count as well."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name, each
            yield from _members(each)
    elif isinstance(value, list):
        for each in value:
            yield from _members(each)


def _size(value: Any, root: dict[str, Any], within: tuple[str, ...]) -> int:
    """Return the number of parts with all references replaced, or more than MOST_PARTS.

    Raises InvalidSchemaError for a part that refers to itself, or to nothing.
    """
    if isinstance(value, list):
        parts, total = list(value), 1
    elif isinstance(value, dict):
        parts, total = [each for name, each in value.items() if name not in _REFERENCES], 1
        if isinstance(reference := value.get("$ref"), str):
            if reference in within or len(within) > 50:
                raise InvalidSchemaError(gettext("A part of the schema refers to itself, which is not supported here."))
            total += _size(_target(root, reference), root, (*within, reference))
    else:
        return 1
    for each in parts:
        if total > MOST_PARTS:
            break
        total += _size(each, root, within)
    return total


def _target(root: dict[str, Any], reference: str) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise InvalidSchemaError(gettext("A $ref of the schema refers to a part that does not exist."))
        found = found[name]
    if found is root:
        raise InvalidSchemaError(gettext("A part of the schema refers to itself, which is not supported here."))
    return found


# --- checking arguments -----------------------------------------------------------------------------------------------
@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> Any:
    """Return the pattern compiled by RE2, None if RE2 does not take it."""
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError):
        return None


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    compiled = _compiled(pattern)
    if isinstance(instance, str) and (compiled is None or not compiled.search(instance.encode("utf-8", "replace"))):
        yield ValidationError("it does not match the pattern")


_Validator: Any = extend(Draft202012Validator, {"pattern": _pattern})


def _errors(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Any]:
    found: Iterator[Any] = _Validator(schema).iter_errors(dict(arguments))
    return found
