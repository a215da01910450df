"""The stream of the fake of Anthropic: a message as the events of which Anthropic makes it.

Options of every kind: every (seconds between two pieces, 0), hold (a threading.Event to wait for before the last
piece), after (how many pieces before a stream breaks; half of them). A piece is a delta of any block.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.model_server import STREAM_KINDS, pieces_of, words_of

Event = dict[str, Any]
DELTA = "content_block_delta"


def stream(exchange: Any, kind: str, message: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Answer the request of the exchange with the message, in pieces."""
    exchange.start_events()
    told = list(_blocks(message))
    pieces = sum(event["type"] == DELTA for event in told)
    until = options.get("after", pieces // 2) if kind in STREAM_KINDS - {"endless"} | {"cut"} else None
    for event in itertools.chain([_start(message)], _until(told, until, endless=kind == "endless")):
        if event["type"] == DELTA:
            pieces -= 1
            if pieces == 0 and "hold" in options:
                options["hold"].wait(30)
            if exchange.fake.closing.wait(options.get("every", 0)):
                break
        exchange.event(event, event["type"])
    if kind == "silent":
        exchange.fake.closing.wait(options.get("seconds"))
    if kind == "error":
        error = {"type": options.get("type", "overloaded_error"), "message": options.get("message", "Overloaded")}
        exchange.event({"type": "error", "error": error, "request_id": "req_fake"}, "error")
    if kind == "reply":
        for event in _end(message):
            exchange.event(event, event["type"])
    if kind in {"reply", "early", "error"}:
        exchange.end_events()
    else:
        exchange.break_off(rst=options.get("rst", False))


def _until(events: list[Event], pieces: int | None, *, endless: bool) -> Iterator[Event]:
    """Give the events, or those before one piece too many, or the pieces again and again."""
    said = 0
    for event in events:
        said += event["type"] == DELTA
        if pieces is not None and said > pieces:
            return
        yield event
    if endless:
        yield from itertools.cycle([event for event in events if event["type"] == DELTA])


def _start(message: Mapping[str, Any]) -> Event:
    usage = {name: count for name, count in message["usage"].items() if name != "output_tokens_details"}
    empty = {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    return {"type": "message_start", "message": {**message, **empty, "usage": {**usage, "output_tokens": 1}}}


def _blocks(message: Mapping[str, Any]) -> Iterator[Event]:
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _begun(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": DELTA, "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}


def _begun(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block as it is before its first piece."""
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
    return {**block, **empty.get(block["type"], {})}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": word} for word in words_of(block["text"]))
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": word} for word in words_of(block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "tool_use":
        # No pieces at all mean {}, and the first one is empty.
        pieces = pieces_of(json.dumps(block["input"])) if block["input"] else []
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces])


def _end(message: Mapping[str, Any]) -> Iterator[Event]:
    ended = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    usage = {name: count for name, count in message["usage"].items() if name in {*counts, "output_tokens_details"}}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}
