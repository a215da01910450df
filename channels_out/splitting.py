"""Split a long text into messages that a channel accepts.

The joined parts are the text: whitespace at a cut stays at the end of the part before it. Only a part that would be
blank is left out, because providers refuse it; this needs a run of whitespace as long as the limit, or whitespace at
the very end. No cut falls inside a grapheme cluster (one character for the reader: an emoji family, a letter with its
accents), unless one cluster alone exceeds the limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import regex

# The unit that a provider counts. Meta says "characters" and not which: UTF-16 units are never fewer than code points,
# so a part that fits by them fits by either reading.
UNITS: dict[str, Callable[[str], int]] = {
    "characters": len,
    "utf-16 units": lambda text: len(text.encode("utf-16-le", "surrogatepass")) // 2,
    "utf-8 bytes": lambda text: len(text.encode("utf-8", "surrogatepass")),
}
_LARGEST_CHARACTER = 4  # of any unit

_GRAPHEME = regex.compile(r"\X")
_PARAGRAPH = regex.compile(r"\n\s*\n\s*")
# The end of a sentence, in the writing of Europe, Arabia, Pakistan and India with whitespace after it, in that of China
# and Japan without; a line's end counts as much. Lookbehind and possessive quantifiers keep a long row of dots from
# being tried again from each of them.
_STOPS = r"[.!?\u2026\u061F\u06D4\u0964]"
_WIDE_STOPS = r"[\u3002\uFF01\uFF1F]"
_SENTENCE = regex.compile(
    rf"(?<!{_STOPS}){_STOPS}++[\p{{Pe}}\p{{Pf}}\"']*+\s++"
    rf"|(?<!{_WIDE_STOPS}){_WIDE_STOPS}++[\p{{Pe}}\p{{Pf}}]*+\s*+"
    r"|\n\s*+"
)
_WORD = regex.compile(r"\s+")


def split(text: str, limit: int, unit: str = "characters", whole: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Return the text in parts that each fit, cut at the best place: paragraph, sentence, word, grapheme.

    A paragraph's or sentence's end counts only in the second half of a part, so that parts do not come out tiny.

    Arguments:
        text: any text; a blank one gives no part.
        limit: the largest size of a part, at least 4.
        unit: the unit that the provider counts, a key of `UNITS`.
        whole: ranges of the text, in order and apart, inside which it is not cut, unless one alone exceeds the limit.

    Returns parts of which none is blank. The time is linear in the text, whatever its content.
    Raises ValueError for an unknown unit or a limit below 4.
    """
    if unit not in UNITS or limit < _LARGEST_CHARACTER:
        raise ValueError(f"Cannot split at {limit} {unit}.")
    measure = UNITS[unit]
    if measure(text) <= limit:
        return [text] if text.strip() else []
    parts = []
    start = 0
    while start < len(text):
        cut = _cut(text, start, _outside(whole, _cuts(text, start, limit, measure)))
        part = text[start:cut]
        if part.strip():
            parts.append(part)
        start = cut
    return parts


def _cuts(text: str, start: int, limit: int, measure: Callable[[str], int]) -> list[int]:
    """Return every position where a part from `start` may end, in order; at least one."""
    # A part has at most `limit` characters; one more shows whether the last grapheme ends there. Looking no further
    # (nor back: \X counts flags from the beginning) keeps the work linear even if the text is one endless grapheme.
    window = text[start : start + limit + 1]
    cuts: list[int] = []
    size = 0
    for grapheme in _GRAPHEME.finditer(window):
        size += measure(grapheme[0])
        if size > limit:
            break
        cuts.append(start + grapheme.end())
    return cuts or [_within_grapheme(text, start, limit, measure)]


def _outside(whole: Sequence[tuple[int, int]], cuts: list[int]) -> list[int]:
    """Return the positions that are inside no range; all of them if there is none."""
    if not whole:
        return cuts
    begins = [begin for begin, _ in whole]

    def is_inside(position: int) -> bool:
        number = bisect_left(begins, position) - 1
        return number >= 0 and position < whole[number][1]

    return [cut for cut in cuts if not is_inside(cut)] or cuts


def _within_grapheme(text: str, start: int, limit: int, measure: Callable[[str], int]) -> int:
    """Return the position after the last code point that fits, of a grapheme that does not fit."""
    end, size = start, measure(text[start])
    while size <= limit:
        end += 1
        size += measure(text[end])
    return end


def _cut(text: str, start: int, cuts: list[int]) -> int:
    """Return the best of the positions."""
    end = cuts[-1]
    if end == len(text):
        return end
    window = text[start:end]
    first_word = start + len(window) - len(window.lstrip())  # a cut up to here would leave a blank part
    half = start + (end - start) // 2
    for pattern, earliest in ((_PARAGRAPH, half), (_SENTENCE, half), (_WORD, start)):
        ends: list[int] = [match.end() for match in pattern.finditer(text, start, end)]
        for candidate in reversed(ends):
            if candidate > max(earliest, first_word) and _contains(cuts, candidate):
                return candidate
    return end


def _contains(ordered: list[int], value: int) -> bool:
    index = bisect_left(ordered, value)
    return index < len(ordered) and ordered[index] == value
