"""The stream of the fake of the Responses API: a response as the events of which OpenAI makes it.

Options of every kind: every (seconds between two pieces, 0), hold (a threading.Event to wait for before the last
piece), after (how many pieces before a stream breaks; half of them). A piece is a delta of any kind. `error` takes
`nested`: the error in an object, as the service sends it (dyad-sh/dyad#1672); else flat, as its documentation has it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.model_server import STREAM_KINDS, pieces_of, words_of

Event = dict[str, Any]
ENDS = {"completed": "response.completed", "incomplete": "response.incomplete", "failed": "response.failed"}


def stream(exchange: Any, kind: str, response: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Answer the request of the exchange with the response, in pieces."""
    exchange.start_events()
    numbers = itertools.count()
    told = list(_items(response, options.get("confidence", 0.9)))
    pieces = sum(event["type"].endswith(".delta") for event in told)
    until = options.get("after", pieces // 2) if kind in STREAM_KINDS - {"endless"} | {"cut"} else None
    for event in itertools.chain(_start(response), _until(told, until, endless=kind == "endless")):
        if event["type"].endswith(".delta"):
            pieces -= 1
            if pieces == 0 and "hold" in options:
                options["hold"].wait(30)
            if exchange.fake.closing.wait(options.get("every", 0)):
                break
        _send(exchange, event, numbers)
    if kind == "silent":
        exchange.fake.closing.wait(options.get("seconds"))
    if kind == "error":
        _send(exchange, error(options), numbers)
    if kind == "reply":
        _send(exchange, {"type": ENDS[response["status"]], "response": response}, numbers)
    if kind in {"reply", "early", "error"}:
        exchange.end_events()
    else:
        exchange.break_off(rst=options.get("rst", False))


def error(options: Mapping[str, Any]) -> Event:
    """Return the event of an error."""
    said = {
        "code": options.get("code", "server_error"),
        "message": options.get("message", "The server had an error."),
        "param": options.get("param"),
    }
    if options.get("nested"):
        return {"type": "error", "error": {"type": options.get("type", "server_error"), **said}}
    return {"type": "error", **said}


def _send(exchange: Any, event: Event, numbers: Iterator[int]) -> None:
    exchange.event({**event, "sequence_number": next(numbers)}, event["type"])


def _until(events: list[Event], pieces: int | None, *, endless: bool) -> Iterator[Event]:
    """Give the events, or those before one piece too many, or the pieces again and again."""
    said = 0
    for event in events:
        said += event["type"].endswith(".delta")
        if pieces is not None and said > pieces:
            return
        yield event
    if endless:
        yield from itertools.cycle([event for event in events if event["type"].endswith(".delta")])


def _start(response: Mapping[str, Any]) -> Iterator[Event]:
    empty = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    empty |= {"error": None, "completed_at": None}
    yield {"type": "response.created", "response": empty}
    yield {"type": "response.in_progress", "response": empty}


def _items(response: Mapping[str, Any], confidence: float) -> Iterator[Event]:
    pieces = {"reasoning": _reasoning, "message": _message, "function_call": _call}
    for index, item in enumerate(response["output"]):
        place = {"output_index": index}
        yield {"type": "response.output_item.added", "item": _begun(item), **place}
        yield from pieces[item["type"]](item, {"item_id": item["id"], **place})
        yield {"type": "response.output_item.done", "item": item, **place}


def _begun(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item as it is before its first piece."""
    if item["type"] == "message":
        return {**item, "status": "in_progress", "content": []}
    if item["type"] == "function_call":
        return {**item, "status": "in_progress", "arguments": ""}
    return {**item, "summary": []}


def _reasoning(item: Mapping[str, Any], place: Event) -> Iterator[Event]:
    for index, part in enumerate(item["summary"]):
        place = {**place, "summary_index": index}
        begin = "response.reasoning_summary_"
        yield {"type": f"{begin}part.added", "part": {"type": "summary_text", "text": ""}, **place}
        for word in words_of(part["text"]):
            yield {"type": f"{begin}text.delta", "delta": word, **place}
        yield {"type": f"{begin}text.done", "text": part["text"], **place}
        yield {"type": f"{begin}part.done", "part": part, **place}


def _message(item: Mapping[str, Any], place: Event) -> Iterator[Event]:
    for index, part in enumerate(item["content"]):
        place = {**place, "content_index": index}
        name = "refusal" if part["type"] == "refusal" else "text"
        kind = "response.refusal" if name == "refusal" else "response.output_text"
        sure = {token["token"]: token for token in part.get("logprobs") or ()}
        begun = {"annotations": [], "logprobs": []} if name == "text" else {}
        yield {"type": "response.content_part.added", "part": {"type": part["type"], name: "", **begun}, **place}
        for word in words_of(part[name]):
            more = {"logprobs": [sure[word.strip()]] if word.strip() in sure else []} if name == "text" else {}
            yield {"type": f"{kind}.delta", "delta": word, **more, **place}
        more = {"logprobs": part.get("logprobs") or []} if name == "text" else {}
        yield {"type": f"{kind}.done", name: part[name], **more, **place}
        yield {"type": "response.content_part.done", "part": part, **place}


def _call(item: Mapping[str, Any], place: Event) -> Iterator[Event]:
    begin = "response.function_call_arguments"
    for piece in pieces_of(item["arguments"]):
        yield {"type": f"{begin}.delta", "delta": piece, **place}
    yield {"type": f"{begin}.done", "arguments": item["arguments"], "name": item["name"], **place}
