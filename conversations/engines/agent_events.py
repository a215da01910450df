"""The events of an agent that streams its answer (server-sent events): delta, done, error.

Source of the format: https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing an event stream".
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """One event. `data` is its JSON; None if it is not JSON."""

    name: str
    data: Any


async def read_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[AgentEvent]:
    """Yield the events of a stream as they come. An event that the stream's end cuts short is left out."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    rest, name = "", ""
    data: list[str] = []
    async for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            if not line:
                if data:
                    yield AgentEvent(name, _json("\n".join(data)))
                name, data = "", []
                continue
            field, _, value = line.removeprefix("\ufeff").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
