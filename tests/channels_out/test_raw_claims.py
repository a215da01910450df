"""The accounts that a webhook claims to be for, found in raw bytes that anybody may have sent."""

from __future__ import annotations

import orjson
import pytest

from channels_out.errors import InboundError
from channels_out.raw_claims import MOST_CLAIMS, claims
from channels_out.shapes import MAX_NODES, has_more_nodes, load_json


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"id":"1"}', ["1"]),
        (b'{"id" :\n\t "1"}', ["1"]),
        (b'{"id":"1","id":"2","id":"1"}', ["1", "2"]),
        (b'{"a":[{"id":"1"},{"b":{"id":"2"}}]}', ["1", "2"]),
        (rb'{"id":"B\u00fcro \"7\""}', ['Büro "7"']),
        ('{"id":"Büro"}'.encode(), ["Büro"]),
        (rb'{"text":"\"id\":\"9\"","id":"1"}', ["1"]),
        (rb'{"\u0069d":"1"}', []),
        (b'{"id":1}', []),
        (b'{"id":""}', []),
        (b'{"id":"  "}', []),
        (b'{"id":"%b"}' % (b"x" * 256), []),
        (rb'{"id":"\ud800"}', []),
        (rb'{"id":"\q"}', []),
        (b'{"id":"\xff"}', []),
        (b'{"id":"1', []),
        (b"", []),
        (b" " * 3_000_000 + b'{"id":"1"}', ["1"]),
    ],
)
def test_what_stands_at_the_key_is_found_wherever_it_is(body, found):
    assert claims(body, "id") == found


def test_only_so_many_are_looked_at():
    assert len(claims(orjson.dumps([{"id": str(n)} for n in range(50_000)]), "id")) == MOST_CLAIMS
    assert claims(b'{"id":"1"}' * 100_000 + b'{"id":"2"}', "id") == ["1"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"entry":[' + b"[]," * MAX_NODES + b"[]]}",
        b"[" + b"0," * MAX_NODES + b"0]",
        b"[" + b'"",' * MAX_NODES * 3 + b'""]',
        b"{" + b'"a":{},' * MAX_NODES + b'"a":0}',
        b"[" * 3_000_000,
        b'["' + rb"\"," * 100 + b'",' + b"0," * MAX_NODES + b"0]",
    ],
)
def test_a_body_with_too_many_values_is_refused(body):
    with pytest.raises(InboundError) as caught:
        load_json(body)
    assert (caught.value.code, "250,000" in str(caught.value)) == ("malformed", True)


def test_signs_in_a_text_are_no_values():
    text = ',[{"\\' * MAX_NODES
    assert load_json(orjson.dumps([text])) == [text]
    assert not has_more_nodes(orjson.dumps([[0, "a,b", {}]] * 10), 51)
    assert has_more_nodes(orjson.dumps([[0, "a,b", {}]] * 10), 40)
