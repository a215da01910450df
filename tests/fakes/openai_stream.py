"""How the fake of OpenAI streams: words as server-sent events, in chunks of HTTP, as OpenAI does.

reply       tool_calls (after the words), every (seconds between two words, 0), finish_reason ("stop"), usage, hold (a
            threading.Event to wait for before the last word)
cut         the connection breaks after half of the words, or `after` so many
error       OpenAI's error in the stream after `after` words (half of them)
silent      after `after` words (half of them) nothing more comes. seconds (else until the fake is closed)
endless     the words again and again, until the reader goes away
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes import tools

KINDS = {"error", "silent", "endless"}


def words_of(text: str) -> list[str]:
    """The text in pieces of a word and what follows it."""
    return re.findall(r"\S+\s*|\s+", text)


def stream(handler: Any, kind: str, text: str, body: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Answer the request of the handler, whose server is the fake's."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    closing, every = handler.server.fake.closing, options.get("every", 0)
    words = words_of(text)
    until = options.get("after", len(words) // 2) if kind in {"cut", "error", "silent"} else len(words)
    said = itertools.cycle(words) if kind == "endless" else iter(words[:until])
    for number, word in enumerate(said, start=1):
        if number == len(words) and "hold" in options:
            options["hold"].wait(30)
        sure = tools.probabilities(word, options.get("confidence", 0.9), body)
        _event(handler, _chunk(body, {"content": word}, logprobs=sure))
        if every and closing.wait(every):
            break
    if kind == "silent":
        closing.wait(options.get("seconds"))
    elif kind == "error":
        _event(handler, {"error": {"message": "The server had an error.", "type": "server_error", "code": None}})
    if kind == "reply":
        for delta in _calls(body, options.get("tool_calls", ())):
            _event(handler, _chunk(body, delta))
        for event in _end(body, text, options):
            _event(handler, event)
        _send(handler, b"data: [DONE]\n\n")
        handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.close_connection = True


def _end(body: Mapping[str, Any], text: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield _chunk(body, {}, options.get("finish_reason", "stop"))
    asked = sum(len(message["content"] or "") for message in body["messages"]) // 4
    usage = {"prompt_tokens": asked, "completion_tokens": len(text) // 4, "total_tokens": asked + len(text) // 4}
    yield {**_chunk(body, {}), "choices": [], "usage": options.get("usage", usage)}


def _calls(body: Mapping[str, Any], wanted: Any) -> Iterator[dict[str, Any]]:
    """Each call's id and name first, then its arguments in pieces, those of all calls interleaved."""
    called = tools.calls(wanted, len(body["messages"])).get("tool_calls", [])
    pieces = []
    for index, call in enumerate(called):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
        text = call["function"]["arguments"]
        pieces += [(at, index, text[at : at + 7]) for at in range(0, len(text), 7)]
    for _, index, text in sorted(pieces):
        yield {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _chunk(
    body: Mapping[str, Any], delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "model": body["model"], "choices": [choice]}


def _event(handler: Any, data: dict[str, Any]) -> None:
    _send(handler, b"data: " + json.dumps(data).encode() + b"\n\n")


def _send(handler: Any, content: bytes) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
    handler.wfile.flush()
