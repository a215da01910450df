"""What is kept nowhere and shown to no model: card numbers, and what a client's own patterns match. Pure functions.

A card number is 13 to 19 digits with a right check digit (ISO/IEC 7812-1, Luhn), with blanks and hyphens between them
as people type or dictate them. Patterns are RE2's, which takes time in proportion to the text, whatever the pattern:
nobody can write one that stops the house.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import re2

log = logging.getLogger(__name__)

REDACTED = "[redacted]"
CARD_REMOVED = "[card number removed]"

MOST_PATTERNS = 20
LONGEST_PATTERN = 200  # characters
# Of all patterns together, as RE2 compiles them: the worst of them take about 13 ns an instruction and byte of text.
MOST_INSTRUCTIONS = 2_000
COMPILED_BYTES = 1 << 18

_FEWEST, _MOST = 13, 19  # digits
_LONGEST_PHONE = 15  # digits, ITU-T E.164
_SHORTEST_PHONE = 7
_BETWEEN = "[ \u00a0\u2007\u2009\u202f\\-\u2010-\u2013\u2212]"
_MANY_DIGITS = re.compile(rf"\d(?:{_BETWEEN}{{0,3}}\d){{{_FEWEST - 1}}}")
_RUN = re.compile(rf"\d+(?:{_BETWEEN}{{1,3}}\d+)*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PLUS = ("+", "\uff0b")
_MAY_GO_ON = "0123456789+\uff0b \u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2212"
PROBES = ("", " aB 1.,-\n")
HELD_BACK = 256  # characters at the end of what is being written, which a pattern may yet match

# What names somebody or something in JSON that is kept to be processed again, as providers and we call it.
_NAMES = re.compile(
    r"(?:^|_)(?:id|ids|uuid|mid|from|to|src|dst|phone|phone_number|address|aliases|account|timestamp|time|watermark)$"
    r"|(?:UUID|Id|ID)$|^(?:From|To|Timestamp)$"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is removed from a client's texts: card numbers, and whatever matches one of the patterns."""

    cards: bool = True
    patterns: tuple[str, ...] = ()

    def clean(self, text: str) -> str:
        """The text without it. Cleaning twice does no more than once."""
        if self.cards and _may_hold_card(text):
            text = _without_cards(text)
        for pattern in self.patterns:
            text = _without(pattern, text)
        return text

    def clean_json(self, value: Any) -> Any:
        """A copy of what JSON can say, with its texts cleaned. Names, addresses and times stay: it may be processed
        again."""
        top = [value]
        todo: list[tuple[Any, str]] = [(top, "")]
        while todo:
            place, called = todo.pop()
            for key, each in list(place.items() if isinstance(place, dict) else enumerate(place)):
                name = key if isinstance(key, str) else called
                if isinstance(each, dict | list):
                    place[key] = each.copy()
                    todo.append((place[key], name))
                elif not _NAMES.search(name):
                    place[key] = self._clean_value(each)
        return top[0]

    def clean_body(self, body: str) -> str:
        """The body of a request: the fields of a form, or a text."""
        if "=" in body and not body.lstrip().startswith(("{", "[", "<")):
            fields = parse_qsl(body, keep_blank_values=True)
            cleaned = [(name, value if _NAMES.search(name) else self.clean(value)) for name, value in fields]
            if fields:
                return body if cleaned == fields else urlencode(cleaned)
        return self.clean(body)

    def clean_beginning(self, text: str) -> str:
        """What is certain of a text that is still being written: its beginning, cleaned, without what may yet turn out
        to be part of something to be removed."""
        end = max(len(text) - HELD_BACK, 0) if self.patterns else len(text)
        matches = self._matches(text)
        before = None
        while before != end:  # neither way of cutting may cut what the other one left whole
            before = end
            if self.cards:
                end = _before_digits(text, end)
            end = next((start for start, over in matches if start < end < over), end)
        return self.clean(text[:end])

    def _matches(self, text: str) -> list[tuple[int, int]]:
        """Where the patterns match, from the first on."""
        compiled = [pattern for pattern in map(_known, self.patterns) if pattern]
        return sorted(found.span() for each in compiled for found in each.finditer(text))

    def _clean_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 10**_FEWEST:  # shorter: a time
            return value if self.clean(str(value)) == str(value) else CARD_REMOVED
        return value


CARDS_ALONE = Rules()


# --- patterns --------------------------------------------------------------------------------------------------------
def problem_with(patterns: Sequence[str]) -> str:
    """Why these cannot be a client's patterns, in a sentence; '' if they can."""
    if len(patterns) > MOST_PATTERNS:
        return f"There can be {MOST_PATTERNS} patterns; these are {len(patterns)}."
    instructions = 0
    for number, pattern in enumerate(patterns, start=1):
        if sentence := _problem_with_one(pattern):
            return f"Pattern {number} {sentence}"
        instructions += _compile(pattern).programsize
    if instructions > MOST_INSTRUCTIONS:
        return (
            f"Together they are too large: {instructions:,} steps of {MOST_INSTRUCTIONS:,}. Write smaller repetitions."
        )
    return ""


def _problem_with_one(pattern: Any) -> str:
    if not isinstance(pattern, str) or not pattern.strip():
        return "is blank."
    if len(pattern) > LONGEST_PATTERN:
        return f"has {len(pattern)} characters; {LONGEST_PATTERN} are possible."
    try:
        compiled = _compile(pattern)
    except (re2.error, UnicodeError) as error:
        return f"is not one that RE2 understands: {_reason(error)}"
    if any(found.start() == found.end() for probe in PROBES for found in compiled.finditer(probe)):
        return "matches where there is nothing, that is, everywhere."
    if any(compiled.search(placeholder) for placeholder in (REDACTED, CARD_REMOVED)):
        return f"also matches “{REDACTED}” or “{CARD_REMOVED}”, which stand for what was removed."
    return ""


def _reason(error: Exception) -> str:
    """What RE2 says, which it says in bytes."""
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else "it is no text"


def _compile(pattern: str) -> Any:
    """Raises re2.error, UnicodeError."""
    options = re2.Options()
    options.max_mem = COMPILED_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


def _before_digits(text: str, end: int) -> int:
    """Where what comes before `end`, and may be the beginning of a card number, begins."""
    settled = len(text[:end].rstrip(_MAY_GO_ON))
    return settled if any(character.isdigit() for character in text[settled:end]) else end


@lru_cache(maxsize=1_000)
def _known(pattern: str) -> Any:
    """Compiled; None for one that never should have been kept."""
    try:
        return _compile(pattern)
    except (re2.error, UnicodeError):
        log.warning("a pattern of redaction does not compile, and removes nothing")
        return None


def _without(pattern: str, text: str) -> str:
    compiled = _known(pattern)
    if compiled is None:
        return text
    cleaned: str = compiled.sub(REDACTED, text)
    return cleaned


# --- card numbers ----------------------------------------------------------------------------------------------------
def _may_hold_card(text: str) -> bool:
    """A quick look: plain text with too few digits is not read any further."""
    if text.isascii():
        plain = text.encode()
        if len(plain) - len(plain.translate(None, b"0123456789")) < _FEWEST:
            return False
    return _MANY_DIGITS.search(text) is not None


def _without_cards(text: str) -> str:
    """The text with each card number replaced. Where several readings of neighbouring digits are card numbers, all of
    them go: rather a digit too many than half a card left."""
    ids: list[tuple[int, int]] | None = None
    pieces, read = [], 0
    for run in _RUN.finditer(text):
        if run.end() - run.start() < _FEWEST:
            continue
        for start, end in _cards_in(run[0], after_plus=text[run.start() - 1 : run.start()] in _PLUS):
            first, last = run.start() + start, run.start() + end
            if ids is None:
                ids = [found.span() for found in _UUID.finditer(text)]
            if any(begin < last and first < stop for begin, stop in ids):
                continue
            pieces += [text[read:first], CARD_REMOVED]
            read = last
    return "".join([*pieces, text[read:]])


def _cards_in(run: str, *, after_plus: bool) -> list[tuple[int, int]]:
    """Where card numbers stand in digits with single separators between groups of them; neighbours as one."""
    groups = [found.span() for found in re.finditer(r"\d+", run)]
    digits = [int(character) for start, end in groups for character in run[start:end]]
    if len(digits) < _FEWEST or (after_plus and len(digits) <= _LONGEST_PHONE):
        return []
    sums = _check_sums(digits)
    before = [0]  # digits before each group
    for start, end in groups:
        before.append(before[-1] + end - start)
    found: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(groups):
        at = before[first]
        if digits[at] == 0 or (after_plus and _within_phone(at, before[1])):
            continue
        for last in range(first, len(groups)):
            length = before[last + 1] - at
            if length > _MOST:
                break
            if length >= _FEWEST and _is_right(sums, at, at + length):
                found.append((start, groups[last][1]))
    return _merged(found)


def _within_phone(at: int, first_group: int) -> bool:
    """Whether a number that begins so many digits after a plus would begin inside of a phone number."""
    return at < _SHORTEST_PHONE and not (at == 0 and first_group > _LONGEST_PHONE)


def _check_sums(digits: Sequence[int]) -> tuple[list[int], list[int]]:
    """Luhn's sums of the digits before each place: with the even places doubled, and with the odd ones."""
    even, odd = [0], [0]
    for place, digit in enumerate(digits):
        doubled = digit * 2 - 9 if digit > 4 else digit * 2
        even.append(even[-1] + (doubled if place % 2 == 0 else digit))
        odd.append(odd[-1] + (doubled if place % 2 else digit))
    return even, odd


def _is_right(sums: tuple[list[int], list[int]], start: int, end: int) -> bool:
    """Whether the last of these digits is the check digit of the others: every second from it on counts double."""
    chosen = sums[end % 2]
    return (chosen[end] - chosen[start]) % 10 == 0


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
