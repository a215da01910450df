"""Properties of every registered adapter, for any input."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
import regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from channels_out import registry
from channels_out.contract import Account, Adapter, InboundRequest
from channels_out.errors import InboundError
from channels_out.splitting import UNITS, split
from tests.channels_out.contract import ANYTHING
from tests.sizes import times

ADAPTERS = [pytest.param(each, id=f"{each.provider}-{each.channel}") for each in registry.ADAPTERS]
URL = "https://convo.example/webhooks/x/inbound"

# Names that adapters look for, so that the payloads of hypothesis are often nearly right.
NAMES = st.sampled_from(
    [
        "object",
        "entry",
        "changes",
        "value",
        "metadata",
        "phone_number_id",
        "messages",
        "statuses",
        "contacts",
        "from",
        "id",
        "type",
        "text",
        "body",
        "timestamp",
        "messaging",
        "sender",
        "recipient",
        "message",
        "mid",
        "attachments",
        "payload",
        "postback",
        "delivery",
        "watermark",
        "read",
        "gateway",
        "data",
        "device_id",
        "message_id",
        "content",
        "From",
        "To",
        "Text",
        "MessageUUID",
        "Status",
        "CallUUID",
        "Speech",
        "CallStatus",
        "Event",
    ]
)
PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | NAMES | st.just("\x00\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)
FORMS = st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8)
BODIES = (
    PAYLOADS.map(lambda payload: json.dumps(payload).encode())
    | ANYTHING.map(lambda payload: json.dumps(payload).encode())
    | FORMS.map(lambda form: urlencode(form).encode())
    | st.binary(max_size=60)
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "x-hub-signature-256",
            "x-convo-secret",
            "x-plivo-signature-v3",
            "x-plivo-signature-v3-nonce",
            "x-plivo-signature-v2",
            "x-plivo-signature-v2-nonce",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "content-type",
        ]
    ),
    st.text(max_size=40) | st.sampled_from(["v1,", "v1,abc", "sha256=", "1700000000", "application/json"]),
    max_size=5,
)
QUERIES = st.dictionaries(
    NAMES | st.sampled_from(["hub.mode", "hub.verify_token", "turn"]), st.text(max_size=9), max_size=4
)


@pytest.mark.parametrize("adapter", ADAPTERS)
@settings(max_examples=times(25, 300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(body=b"{", headers={"content-type": "application/x-www-form-urlencoded"}, query={})
@given(body=BODIES, headers=HEADERS, query=QUERIES)
def test_no_request_raises_anything_but_the_adapters_own_errors(
    adapter: Adapter, body: bytes, headers: dict[str, str], query: dict[str, str]
) -> None:
    request = InboundRequest("POST", URL, headers, query, body)
    account = Account("1", dict.fromkeys(adapter.credentials, "whsec_c2VjcmV0"), public_url="https://convo.example")

    def own(step: Any, *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except InboundError:
            return None

    adapter.recognises(request)
    own(adapter.handshake, request, [account])
    own(adapter.addresses, request)
    own(adapter.verify, request, account)
    events = own(adapter.parse, request)
    if events is not None:
        kept = json.dumps(adapter.keep(request))  # a request can be kept, and read again
        assert own(adapter.parse, adapter.replayed(json.loads(kept))) is not None


GRAPHEMES = regex.compile(r"\X")
TEXTS = st.lists(
    st.sampled_from(["a", " ", "\n\n", ". ", "é", "e\u0301", "👨‍👩‍👧", "🇵🇪", "क्षि", "ش", "。", "word ", "👍🏽"])
    | st.text(max_size=3),
    max_size=120,
).map("".join)


@pytest.mark.parametrize("limit", sorted({(each.text_limit, each.limit_unit) for each in registry.ADAPTERS}))
@settings(max_examples=times(25, 300), deadline=None)
@given(text=TEXTS, times=st.integers(1, 400))
def test_split_parts_joined_give_the_text_none_is_over_the_limit_and_no_grapheme_is_cut(
    limit: tuple[int, str], text: str, times: int
) -> None:
    most, unit = limit
    text = (text * times)[: 3 * most]
    parts = split(text, most, unit)
    joined = "".join(parts)
    assert joined == text or joined.split() == text.split(), (
        "only whitespace that would be a part of its own is left out"
    )
    assert [part for part in parts if UNITS[unit](part) > most] == []
    assert [part for part in parts if not part.strip()] == []
    if joined != text or any(UNITS[unit](each) > most for each in GRAPHEMES.findall(text)):
        return
    ends = {0}
    for grapheme in GRAPHEMES.finditer(text):
        ends.add(grapheme.end())
    at = 0
    for part in parts:
        at += len(part)
        assert at in ends, "a grapheme was cut"
