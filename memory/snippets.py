"""Cuts the snippet of a found conversation: the entry that fits best, around the words that were searched for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from memory.words import words, words_with_offsets

LONGEST = 240  # characters of a snippet
BEFORE = 80  # of them before the first word that was searched for
SEARCHED = 400_000  # characters of a conversation; the rest is not searched for the best entry


class SnippetSource(NamedTuple):
    """A text that a snippet may be taken from: an entry at its position, or the summary (None), and its words."""

    position: int | None
    text: str
    words: Collection[str]


class Snippet(NamedTuple):
    """Part of an entry or of the summary, as plain text, and the offsets of the words that were searched for."""

    position: int | None
    text: str
    highlights: tuple[tuple[int, int], ...]


def snippet_sources(texts: Iterable[tuple[int | None, str]], prefixes: tuple[str, ...] = ("",)) -> list[SnippetSource]:
    """Return the texts, given with their positions, as sources whose words are those that begin with a prefix."""
    sources, left = [], SEARCHED
    for position, text in texts:
        searched = text[: max(left, 0)]
        sources.append(SnippetSource(position, text, _words(searched, prefixes)))
        left -= len(text)
    return sources


def _words(text: str, prefixes: tuple[str, ...]) -> Collection[str]:
    lowered = text.lower() if text.isascii() else ""  # other letters may be written in several ways
    if lowered and not any(prefix in lowered for prefix in prefixes):
        return ()
    return frozenset(word for word in words(text) if word.startswith(prefixes))


def best_snippet(sources: Collection[SnippetSource], matching: Mapping[str, str]) -> Snippet:
    """Return the snippet of the entry with the most matching words, else of the summary, else of the first source.

    matching: each word that matches the query, with its lexeme (two forms of one word have the same lexeme).
    """

    def fit(source: SnippetSource) -> tuple[bool, int]:
        lexemes = len({matching[word] for word in source.words if word in matching})
        return lexemes > 0 and source.position is not None, lexemes

    source = max(sources, key=fit)
    offsets = [(start, end) for start, end, word in words_with_offsets(source.text[:SEARCHED]) if word in matching]
    return _cut(source, offsets)


def _cut(source: SnippetSource, offsets: list[tuple[int, int]]) -> Snippet:
    start = max(offsets[0][0] - BEFORE, 0) if offsets else 0
    if start:  # begins with a whole word, if one begins soon
        blank = source.text.find(" ", start, start + BEFORE)
        start = blank + 1 if blank >= 0 else start
    text = source.text[start : start + LONGEST].replace("\n", " ")
    head, tail = "…" if start else "", "…" if start + LONGEST < len(source.text) else ""
    shift = len(head) - start
    highlights = tuple((begin + shift, end + shift) for begin, end in offsets if end <= start + LONGEST)
    return Snippet(source.position, f"{head}{text}{tail}", highlights)
