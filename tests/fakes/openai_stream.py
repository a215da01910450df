"""The stream of a chat completion, as the fakes send it: words as server-sent events, in chunks of HTTP.

Kinds of their own are in tests/fakes/model_server.py. Options of every kind: every (seconds between two words, 0), hold
(a threading.Event to wait for before the last word), after (how many words before a stream breaks; half of them),
event (the whole event of `error`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes import tools
from tests.fakes.model_server import STREAM_KINDS, pieces_of, words_of

# The parts of a message that arrive in pieces, in this order.
SPOKEN = ("reasoning_content", "reasoning", "content", "refusal")


@dataclass(frozen=True)
class Shape:
    """The way in which a server cuts its answer into pieces.

    split       cuts text
    one_index   all tool calls have index 0
    whole_calls each tool call is one piece, as it stands in the message
    """

    split: Callable[[str], list[str]] = words_of
    one_index: bool = False
    whole_calls: bool = False


def stream(
    exchange: Any,
    kind: str,
    answer: Mapping[str, Any],
    options: Mapping[str, Any],
    shape: Shape = Shape(),
) -> None:
    """Answer the request of the exchange with a completion, in pieces."""
    exchange.start_events()
    closing, every = exchange.fake.closing, options.get("every", 0)
    words = list(_words(answer, shape, options.get("confidence", 0.9), exchange.body))
    until = options.get("after", len(words) // 2) if kind in STREAM_KINDS - {"endless"} | {"cut"} else len(words)
    exchange.event(_chunk(answer, {"role": "assistant", "content": "", "refusal": None}))
    said = itertools.cycle(words) if kind == "endless" else iter(words[:until])
    for number, word in enumerate(said, start=1):
        if number == len(words) and "hold" in options:
            options["hold"].wait(30)
        exchange.event(word)
        if every and closing.wait(every):
            break
    if kind == "silent":
        closing.wait(options.get("seconds"))
    if kind == "error":
        exchange.event(options.get("event") or {"error": _error(options)})
    if kind in {"early", "error"}:
        exchange.end_events()
    elif kind == "reply":
        for chunk in itertools.chain(_calls(answer, shape), _end(answer, exchange.body)):
            exchange.event(chunk)
        exchange.event("[DONE]")
        exchange.end_events()
    else:
        exchange.break_off(rst=options.get("rst", False))


def _error(options: Mapping[str, Any]) -> dict[str, Any]:
    sentence = options.get("message", "The server had an error.")
    return {"message": sentence, "type": "server_error", "param": None, "code": options.get("code")}


def _words(
    answer: Mapping[str, Any], shape: Shape, confidence: float, body: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    message = answer["choices"][0]["message"]
    for name in SPOKEN:
        for piece in _pieces(message.get(name), shape):
            sure = tools.probabilities(piece, confidence, body) if isinstance(piece, str) else None
            yield _chunk(answer, {name: piece}, logprobs=sure)


def _pieces(said: Any, shape: Shape) -> Iterator[Any]:
    """Give the pieces of a text, or of each text part of a list; other parts are one piece."""
    if not isinstance(said, list):
        yield from shape.split(said or "")
        return
    for part in said:
        if part.get("type") == "text":
            yield from ([{**part, "text": piece}] for piece in shape.split(part["text"]))
        else:
            yield [part]


def _end(answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    choice = answer["choices"][0]
    extra = {name: choice[name] for name in choice if name not in {"index", "message", "logprobs", "finish_reason"}}
    last = _chunk(answer, {}, choice["finish_reason"])
    last["choices"][0].update(extra)
    yield last
    if (body.get("stream_options") or {}).get("include_usage") and answer.get("usage") is not None:
        yield {**_chunk(answer, {}), "choices": [], "usage": answer["usage"]}


def _calls(answer: Mapping[str, Any], shape: Shape) -> Iterator[dict[str, Any]]:
    """Each call's id and name first, then its arguments in pieces, those of all calls interleaved; where all are at one
    index, one call after the other."""
    called = answer["choices"][0]["message"].get("tool_calls") or []
    if shape.whole_calls:
        for number, call in enumerate(called):
            yield _chunk(answer, {"tool_calls": [{"index": 0 if shape.one_index else number, **call}]})
        return
    pieces = []
    for number, call in enumerate(called):
        index = 0 if shape.one_index else number
        first = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        starts = _chunk(answer, {"tool_calls": [first]})
        rest = [(at, index, text) for at, text in enumerate(pieces_of(call["function"]["arguments"]))]
        if shape.one_index:
            yield starts
            yield from (_arguments(answer, index, text) for _, index, text in rest)
        else:
            yield starts
            pieces += rest
    yield from (_arguments(answer, index, text) for _, index, text in sorted(pieces))


def _arguments(answer: Mapping[str, Any], index: int, text: str) -> dict[str, Any]:
    return _chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": text}}]})


def _chunk(
    answer: Mapping[str, Any], delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    head = {name: answer[name] for name in ("id", "created", "model")}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}
