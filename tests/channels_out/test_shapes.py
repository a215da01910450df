"""Payloads of any shape."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_out.errors import InboundError
from channels_out.shapes import MAX_DEPTH, clean, clean_text, identifier, items, load_json, record, text, value_of

WRONG: list[Any] = [None, True, 0, 1.5, "x", [], [1], {}]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'["\\u0000", "\\ud83d", "\\ud83d\\udc4d", "\\\\u0000"]', ["\ufffd", "\ufffd", "👍", "\\u0000"]),
        (b'{"\\u0000": {"\\udc4d": 1}}', {"\ufffd": {"\ufffd": 1}}),
        (b'["\xff"]', ["\ufffd"]),
        (b'["\xed\xa0\xbd"]', ["\ufffd\ufffd\ufffd"]),
        (b"[NaN, Infinity, -Infinity, 1e999, 1]", [None, None, None, None, 1]),
        (b"[NaN, " + b"9" * 400 + b", 18446744073709551616]", [None, None, 18446744073709551616.0]),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    ],
)
def test_json_comes_out_fit_to_be_stored(body: bytes, value: Any) -> None:
    loaded = load_json(body)
    assert value is None or loaded == value
    assert b"\\u0000" not in orjson.dumps(loaded).replace(b"\\\\u0000", b"")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\x00", b"'a'", b'["\n"]', b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b'{"a":' * 99_999]
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(InboundError) as caught:
        load_json(body)
    assert caught.value.code == "malformed"


def test_depth_is_counted_and_not_brackets() -> None:
    wide: Any = [[{}] for _ in range(10_000)]
    assert load_json(json.dumps(wide).encode()) == wide


@given(st.text())
def test_cleaning_leaves_what_utf8_and_postgresql_take(value: str) -> None:
    cleaned = clean_text(value)
    assert len(cleaned) == len(value)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert clean({value: [value, 1, None]}) == {cleaned: [cleaned, 1, None]}


@pytest.mark.parametrize("wrong", WRONG)
def test_reading_a_wrong_shape_gives_nothing(wrong: Any) -> None:
    for holder in (wrong, {"key": wrong}):
        assert text(holder, "key") == ("x" if holder == {"key": "x"} else "")
        assert record(holder, "key") == {}
        assert items(holder, "key") == ([1] if holder == {"key": [1]} else [])
        assert value_of(holder, "key") == (wrong if holder is not wrong else None)


@pytest.mark.parametrize(
    ("value", "expected"), [("a", "a"), (" ", ""), ("", ""), ("x" * 255, "x" * 255), ("x" * 256, "")]
)
def test_an_identifier_is_short_and_not_blank(value: str, expected: str) -> None:
    assert identifier({"id": value}, "id") == expected
