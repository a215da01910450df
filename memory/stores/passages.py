"""Cuts a conversation into the passages that are searched by meaning. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memory.records import ConversationRecord

LONGEST = 1_200  # characters: some 300 tokens, which even small embedding models take as a whole


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a conversation.

    part          0 for the summary; 1, 2, … for whole entries, or a piece of a long one
    first, last   the positions of its first and last entry; 0 for the summary
    """

    part: int
    first: int
    last: int
    text: str


def passages(record: ConversationRecord) -> list[Passage]:
    """Return the summary (unless it is an extract), then the entries, in passages of at most LONGEST characters.

    The list is empty if nothing was said.
    """
    if not record.spoken_entries:
        return []
    summary = [Passage(0, 0, 0, record.searchable_summary[:LONGEST])] if record.searchable_summary else []
    return summary + [Passage(part, *piece) for part, piece in enumerate(_pieces(record), start=1)]


def _pieces(record: ConversationRecord) -> Iterator[tuple[int, int, str]]:
    """Yield (first position, last position, text): as many whole entries as fit, or a piece of one that is too long."""
    first, last, lines, size = 0, 0, list[str](), 0
    for entry in record.spoken_entries:
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
