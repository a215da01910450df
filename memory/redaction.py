"""Removes card numbers, and whatever a client's own patterns match, before a text is stored or shown to a model.

Pure functions. A card number has 13 to 19 digits with a correct check digit (ISO/IEC 7812-1, Luhn), with blanks and
hyphens between them as people type or dictate them. Patterns are RE2's, which takes time in proportion to the text
whatever the pattern: no client can write one that stops the service.
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

MAX_PATTERNS = 20
MAX_PATTERN_LENGTH = 200  # characters
# Of all patterns together, as RE2 compiles them: the slowest take about 13 ns for each instruction and byte of text.
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
_MAY_GO_ON = "+\uff0b \u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2212"
PROBES = ("", " aB 1.,-\n")
# Up to the last character that is part of no card number, and of no id or phone number that looks like one.
_SETTLED = re.compile(rf".*[^\da-fA-F+\uff0b{_BETWEEN[1:-1]}]", re.DOTALL)
HELD_BACK = 256  # characters at the end of a text that is still being written: a pattern may yet match them

# Keys of ids, addresses and times in JSON that is stored to be processed again, as providers and we call them.
_NAMES = re.compile(
    r"(?:^|_)(?:id|ids|uuid|mid|from|to|src|dst|phone|phone_number|address|aliases|account|timestamp|time|watermark)$"
    r"|(?:UUID|Id|ID)$|^(?:From|To|Timestamp)$"
)


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """A client's rules of redaction: whether card numbers are removed, and the patterns that are."""

    cards: bool = True
    patterns: tuple[str, ...] = ()

    def clean(self, text: str) -> str:
        """Return the text, redacted. Redacting it again changes nothing."""
        if self.cards and _may_hold_card(text):
            text = _without_cards(text)
        for pattern in self.patterns:
            text = _without(pattern, text)
        return text

    def clean_json(self, value: Any) -> Any:
        """Return a copy of a JSON value with its texts redacted.

        Ids, addresses and times stay as they are, so that the value can be processed again.
        """
        top = [value]
        todo: list[tuple[Any, str]] = [(top, "")]
        while todo:
            container, container_name = todo.pop()
            for key, each in list(container.items() if isinstance(container, dict) else enumerate(container)):
                name = key if isinstance(key, str) else container_name
                if isinstance(each, dict | list):
                    container[key] = each.copy()
                    todo.append((container[key], name))
                elif not _NAMES.search(name):
                    container[key] = self._clean_value(each)
        return top[0]

    def clean_body(self, body: str) -> str:
        """Return the body of a request, redacted: field by field if it is a form, else as one text."""
        if "=" in body and not body.lstrip().startswith(("{", "[", "<")):
            fields = parse_qsl(body, keep_blank_values=True)
            cleaned = [(name, value if _NAMES.search(name) else self.clean(value)) for name, value in fields]
            return body if cleaned == fields else urlencode(cleaned)
        return self.clean(body)

    def clean_beginning(self, text: str) -> str:
        """Return the redacted beginning of a text that is still being written.

        The end is held back while it may turn out to be part of something that is removed.
        """
        end = max(len(text) - HELD_BACK, 0) if self.patterns else len(text)
        matches = self._matches(text)
        before = None
        while before != end:  # neither cut may divide a match that the other one left whole
            before = end
            if self.cards:
                end = _before_digits(text, end)
            end = next((start for start, over in matches if start < end < over), end)
        return self.clean(text[:end])

    def _matches(self, text: str) -> list[tuple[int, int]]:
        """Return the start and end of each match of a pattern, in their order."""
        compiled = [pattern for pattern in map(_known, self.patterns) if pattern]
        return sorted(found.span() for each in compiled for found in each.finditer(text))

    def _clean_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, int) and value >= 10**_FEWEST:  # shorter: a time
            return value if self.clean(str(value)) == str(value) else CARD_REMOVED
        return value


CARDS_ONLY = RedactionRules()


class GrowingText:
    """The redacted beginning of a text that is still being written, which is read again and again as it grows.

    Without patterns only the end is looked at again: the whole each time would cost as much as its length.
    """

    def __init__(self, rules: RedactionRules = CARDS_ONLY) -> None:
        self._rules = rules
        self._read, self._clean = 0, ""  # how many characters are settled, and these, redacted

    def beginning(self, text: str) -> str:
        """Return what `RedactionRules.clean_beginning` does. `text` begins with the text of the last call."""
        if self._rules.patterns:
            return self._rules.clean_beginning(text)
        if settled := _SETTLED.match(text, self._read):
            self._read = settled.end()
            self._clean += self._rules.clean(settled[0])
        return self._clean + self._rules.clean_beginning(text[self._read :])


# --- patterns --------------------------------------------------------------------------------------------------------
def pattern_problem(patterns: Sequence[str]) -> str:
    """Return the sentence that says why these cannot be a client's patterns; '' if they can."""
    if len(patterns) > MAX_PATTERNS:
        return f"There are {len(patterns)} patterns. At most {MAX_PATTERNS} patterns are possible."
    instructions = 0
    for number, pattern in enumerate(patterns, start=1):
        if sentence := _problem_with_one(pattern):
            return f"Pattern {number} {sentence}"
        instructions += _compile(pattern).programsize
    if instructions > MOST_INSTRUCTIONS:
        return (
            f"Together the patterns are too large: {instructions:,} of {MOST_INSTRUCTIONS:,} steps."
            " Write smaller repetitions."
        )
    return ""


def _problem_with_one(pattern: Any) -> str:
    if not isinstance(pattern, str) or not pattern.strip():
        return "is blank."
    if len(pattern) > MAX_PATTERN_LENGTH:
        return f"has {len(pattern)} characters; {MAX_PATTERN_LENGTH} are possible."
    try:
        compiled = _compile(pattern)
    except (re2.error, UnicodeError) as error:
        return f"is not a pattern of RE2: {_reason(error)}"
    if any(found.start() == found.end() for probe in PROBES for found in compiled.finditer(probe)):
        return "matches the empty text, that is, everywhere."
    if any(compiled.search(placeholder) for placeholder in (REDACTED, CARD_REMOVED)):
        return f"also matches “{REDACTED}” or “{CARD_REMOVED}”, which stand for what was removed."
    return ""


def _reason(error: Exception) -> str:
    """Return RE2's own message, which it gives as bytes."""
    message = error.args[0] if error.args else ""
    return message.decode(errors="replace") if isinstance(message, bytes) else "it is not valid text"


def _compile(pattern: str) -> Any:
    """Return the compiled pattern. Raises re2.error, UnicodeError."""
    options = re2.Options()
    options.max_mem = COMPILED_BYTES
    options.log_errors = False
    return re2.compile(pattern, options)


def _before_digits(text: str, end: int) -> int:
    """Return the start of the text before `end` that may be the beginning of a card number; `end` if there is none."""
    settled = end
    while settled and (text[settled - 1] in _MAY_GO_ON or text[settled - 1].isdecimal()):
        settled -= 1
    return settled if any(character.isdecimal() for character in text[settled:end]) else end


@lru_cache(maxsize=1_000)
def _known(pattern: str) -> Any:
    """Return the compiled pattern; None if it does not compile, which validation should have refused."""
    try:
        return _compile(pattern)
    except (re2.error, UnicodeError):
        log.warning("A redaction pattern does not compile and removes nothing.")
        return None


def _without(pattern: str, text: str) -> str:
    compiled = _known(pattern)
    if compiled is None:
        return text
    cleaned: str = compiled.sub(REDACTED, text)
    return cleaned


# --- card numbers ----------------------------------------------------------------------------------------------------
def _may_hold_card(text: str) -> bool:
    """Return False quickly for a text that has too few digits for a card number."""
    if text.isascii():
        plain = text.encode()
        if len(plain) - len(plain.translate(None, b"0123456789")) < _FEWEST:
            return False
    return _MANY_DIGITS.search(text) is not None


def _without_cards(text: str) -> str:
    """Return the text with each card number replaced.

    If neighbouring digits can be read as several card numbers, all of these are replaced: rather a digit too many than
    half a card number left.
    """
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
    """Return the start and end of each card number in a run of digits and separators; overlapping ones as one."""
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
    """Return whether a number that begins `at` digits after a plus begins inside a phone number."""
    return at < _SHORTEST_PHONE and not (at == 0 and first_group > _LONGEST_PHONE)


def _check_sums(digits: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return Luhn's sums of the digits before each index: with the even indexes doubled, and with the odd ones."""
    even, odd = [0], [0]
    for index, digit in enumerate(digits):
        doubled = digit * 2 - 9 if digit > 4 else digit * 2
        even.append(even[-1] + (doubled if index % 2 == 0 else digit))
        odd.append(odd[-1] + (doubled if index % 2 else digit))
    return even, odd


def _is_right(sums: tuple[list[int], list[int]], start: int, end: int) -> bool:
    """Return whether the last of these digits is the check digit of the others: every second one counts double."""
    chosen = sums[end % 2]
    return (chosen[end] - chosen[start]) % 10 == 0


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
