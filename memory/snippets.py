"""What is shown of a session that was found: the entry that fits best, cut around the words that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from memory.words import placed_words, words

LONGEST = 240  # characters of a snippet
BEFORE = 80  # of them before the first word that was asked for
LOOKED_AT = 400_000  # characters of a session; what comes after them is not looked at for the best entry


class Piece(NamedTuple):
    """An entry of a session at its position, or the summary at None, and those of its words that are looked at."""

    position: int | None
    text: str
    words: Collection[str]


class Snippet(NamedTuple):
    """Part of a piece, as plain text, and the offsets in it of the words that were asked for."""

    position: int | None
    text: str
    highlights: tuple[tuple[int, int], ...]


def pieces(texts: Iterable[tuple[int | None, str]], starts: tuple[str, ...] = ("",)) -> list[Piece]:
    """The texts, with their positions, as pieces. `starts`: no words are looked at but those that begin so."""
    found, left = [], LOOKED_AT
    for position, text in texts:
        seen = text[: max(left, 0)]
        found.append(Piece(position, text, _words(seen, starts)))
        left -= len(text)
    return found


def _words(text: str, starts: tuple[str, ...]) -> Collection[str]:
    lowered = text.lower() if text.isascii() else ""  # else a letter may be written in several ways
    if lowered and not any(start in lowered for start in starts):
        return ()
    return frozenset(word for word in words(text) if word.startswith(starts))


def best(candidates: Collection[Piece], asked: Mapping[str, str]) -> Snippet:
    """Of the entry that holds most of what was asked for, else of the summary; of the first piece where none holds any.

    asked: each word that counts as asked for, and the lexeme by which it does (two forms of one word have the same).
    """

    def fitting(piece: Piece) -> tuple[bool, int]:
        held = len({asked[word] for word in piece.words if word in asked})
        return held > 0 and piece.position is not None, held

    piece = max(candidates, key=fitting)
    return _cut(piece, [(start, end) for start, end, word in placed_words(piece.text[:LOOKED_AT]) if word in asked])


def _cut(piece: Piece, places: list[tuple[int, int]]) -> Snippet:
    start = max(places[0][0] - BEFORE, 0) if places else 0
    if start:  # begins with a whole word, if one begins soon
        blank = piece.text.find(" ", start, start + BEFORE)
        start = blank + 1 if blank >= 0 else start
    text = piece.text[start : start + LONGEST].replace("\n", " ")
    head, tail = "…" if start else "", "…" if start + LONGEST < len(piece.text) else ""
    shift = len(head) - start
    shown = tuple((begin + shift, end + shift) for begin, end in places if end <= start + LONGEST)
    return Snippet(piece.position, f"{head}{text}{tail}", shown)
