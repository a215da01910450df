"""The events of an agent's stream, however the network cuts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversations.engines.agent_events import AgentEvent, read_events

STREAM = (
    '\ufeff: hello\n\nevent: delta\ndata: {"text":\ndata:  "wäy"}\nid: 7\n\n'
    'data: {"no": "name"}\n\nevent:done\ndata:{}\n\nevent: delta\ndata: {"cut'
).encode()
EVENTS = [AgentEvent("delta", {"text": "wäy"}), AgentEvent("", {"no": "name"}), AgentEvent("done", {})]


def events(*pieces: bytes) -> list[AgentEvent]:
    async def feed() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> list[AgentEvent]:
        return [event async for event in read_events(feed())]

    return asyncio.run(run())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_is_one(end: bytes) -> None:
    assert events(STREAM.replace(b"\n", end)) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_it_does_not_matter_where_the_network_cuts(cuts: list[int]) -> None:
    crlf = STREAM.replace(b"\n", b"\r\n")
    places = [0, *sorted(cuts), len(crlf)]
    assert events(*[crlf[start:end] for start, end in pairwise(places)]) == EVENTS


@given(st.binary(max_size=300))
def test_nonsense_is_no_event_with_data(nonsense: bytes) -> None:
    assert [event for event in events(nonsense) if event.name == "done" and event.data == {}] == []
