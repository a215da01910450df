"""Traces: the parts of a message's way, told to whoever collects them (OpenTelemetry; convo_project/telemetry.py).

    receive ─► invoke_agent ─┬─► chat            each part is a span; all have the trace id of the newest message that
                             ├─► execute_tool    the reply answers
                             └─► send ─► receipt

A trace crosses processes without being passed on: its ids are computed from those of rows, which are a conversation and
the number of the person's message in it, a turn, a message and when it was sent. So no row, statement or header carries
it, and a receipt of tomorrow still finds it. Where nobody collects, each place costs one comparison.

A span holds ids, codes and numbers. What people and models wrote is in it only with TRACE_TEXTS.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

Value = str | int | float | bool | Sequence[str] | None


class Kind(StrEnum):
    """The kinds of spans, as OpenTelemetry names them."""

    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"
    INTERNAL = "internal"


class Point(NamedTuple):
    """A span's place: its trace and itself."""

    trace_id: int
    span_id: int


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a way that has ended. Times are seconds since 1970; `error` is a code, '' for none."""

    name: str
    kind: Kind
    at: Point
    parent: Point | None
    began: float
    ended: float
    attributes: Mapping[str, Value]
    error: str = ""
    links: Sequence[Point] = ()


NO_SPAN = 0  # the id of what has no span: what comes after it begins its trace
Recorder = Callable[[Span], None]
_recorder: Recorder | None = None
_flush: Callable[[], object] | None = None


def record_to(recorder: Recorder | None, flush: Callable[[], object] | None = None) -> None:
    """Let the recorder have every span from now on; None for nobody. `flush` sends what it still holds."""
    global _recorder, _flush
    _recorder, _flush = recorder, flush


def is_on() -> bool:
    """Return whether somebody collects spans."""
    return _recorder is not None


def record(span: Span) -> None:
    """Hand the span to the recorder, if there is one."""
    if _recorder is not None:
        _recorder(span)


def flush() -> None:
    """Send what the recorder still holds: call it before a process ends."""
    if _flush is not None:
        _flush()


def tells_texts() -> bool:
    """Return whether spans may hold what people and models wrote."""
    return bool(settings.TRACE_TEXTS)


# --- ids --------------------------------------------------------------------------------------------------------------
def of_message(conversation_id: UUID, sequence: int) -> Point:
    """Return the place of a person's message, which begins a trace.

    sequence: its number among the person's messages in the conversation
    """
    return _beginning("message", conversation_id, sequence)


def of_chunk(conversation_id: UUID, chunk_id: int) -> Point:
    """Return the beginning of the trace of a chunk that answers no message, such as one of staff's. It has no span."""
    return _beginning("chunk", conversation_id, chunk_id)._replace(span_id=NO_SPAN)


def of_turn(turn_id: UUID, message: Point) -> Point:
    """Return the place of a turn whose newest message is there."""
    return _within(message, "turn", turn_id)


def of_send(message_id: UUID, sending_at: object, before: Point) -> Point:
    """Return the place of an attempt to send a message, in the trace of what comes before it."""
    return _within(before, "send", message_id, sending_at)


def anywhere(parent: Point) -> Point:
    """Return a place of its own in the trace of the parent, for what nothing refers to."""
    return Point(parent.trace_id, int.from_bytes(os.urandom(8)))


def _beginning(*named: object) -> Point:
    digest = _digest(*named)
    return Point(int.from_bytes(digest[:16]), int.from_bytes(digest[16:24]))


def _within(other: Point, *named: object) -> Point:
    return Point(other.trace_id, int.from_bytes(_digest(other.trace_id, *named)[:8]))


def _digest(*named: object) -> bytes:
    return blake2b("\0".join(map(str, named)).encode(), digest_size=24).digest()


# --- what is being done -----------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Doing:
    """A part that has not ended yet, whose attributes may be added."""

    attributes: dict[str, Value] = field(default_factory=dict)
    error: str = ""

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes."""
        self.attributes.update(attributes)


@contextmanager
def part(
    name: str, kind: Kind, parent: Point | None, attributes: Mapping[str, Value], at: Point | None = None
) -> Iterator[Doing]:
    """Record what the block does as a span below the parent; nothing without one.

    at: its place; None for any. An error that leaves the block is told by its code, or else its class.
    """
    doing = Doing()
    if parent is None or _recorder is None:
        yield doing
        return
    doing.note(attributes)
    began = time.time()
    try:
        yield doing
    except BaseException as error:
        doing.error = str(getattr(error, "code", "") or type(error).__name__)
        raise
    finally:
        ended = max(time.time(), began)
        above = parent if parent.span_id != NO_SPAN else None
        record(Span(name, kind, at or anywhere(parent), above, began, ended, doing.attributes, doing.error))
