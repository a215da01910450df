"""A session cut into the pieces that are searched by meaning. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memory.records import SessionRecord

LONGEST = 1_200  # characters: some 300 tokens, which even small embedding models take in whole


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a session's text. `part` 0 is the summary (at no position); the others are entries, or a piece of a
    long one, from position `first` to `last`."""

    part: int
    first: int
    last: int
    text: str


def passages(record: SessionRecord) -> list[Passage]:
    """The summary (unless it is an extract), then what was said, in passages of at most LONGEST characters.

    None where nothing was said.
    """
    if not record.said:
        return []
    summary = [Passage(0, 0, 0, record.telling_summary[:LONGEST])] if record.telling_summary else []
    return summary + [Passage(part, *piece) for part, piece in enumerate(_pieces(record), start=1)]


def _pieces(record: SessionRecord) -> Iterator[tuple[int, int, str]]:
    """(first position, last position, text): as many whole entries as fit, or a piece of one that is too long."""
    first, last, lines, size = 0, 0, list[str](), 0
    for entry in record.said:
        text = entry.content.strip()
        if lines and size + len(text) > LONGEST:
            yield first, last, "\n".join(lines)
            lines, size = [], 0
        if len(text) > LONGEST:
            pieces = (text[start : start + LONGEST] for start in range(0, len(text), LONGEST))
            yield from ((entry.position, entry.position, piece) for piece in pieces if piece.strip())
            continue
        if not lines:
            first = entry.position
        last = entry.position
        lines.append(text)
        size += len(text) + 1
    if lines:
        yield first, last, "\n".join(lines)
