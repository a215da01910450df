"""The marks that stand before the assistant's messages in a prompt: who wrote one, and what became of it.

A mark is [its beginning, details], on one line. Convo alone writes marks, and only into messages of the assistant: a
person's words stand in messages of the user, so that theirs are never taken for one. A model may copy a mark into its
reply: `without_marks` takes it out, and `may_become_mark` says how long a stream has to wait for that.
"""

from __future__ import annotations

import re

from memory.text import one_line

STAFF = "Written by a human colleague"
NOT_DELIVERED = "Not delivered"
PARTLY_DELIVERED = "Delivered in part"
DELIVERY_UNKNOWN = "Delivery unknown"
NEXT = "Your next message"
BEGINNINGS = (STAFF, NOT_DELIVERED, PARTLY_DELIVERED, DELIVERY_UNKNOWN, NEXT)

# What became of a message, as `PromptEntry.delivery` says it.
SENDING_FAILED = f"{NOT_DELIVERED}: it could not be sent"
CANCELLED = f"{NOT_DELIVERED}: it was cancelled before it was sent"

LONGEST_NAME = 60  # characters
LONGEST_DETAILS = 120  # characters of a mark after its beginning
STAFF_MARK = f"[{STAFF}] "  # for a colleague whose name is not known
NEXT_MARK = f"[{NEXT}] "

_MARKS = re.compile(
    r"\s*(?:\[(?:%s)[^\[\]\n]{0,%d}\]\s*)+" % ("|".join(BEGINNINGS), LONGEST_DETAILS),  # noqa: UP031 - full of braces
    re.IGNORECASE,
)


def staff_mark(name: str) -> str:
    """Return the mark of a colleague's message. The name cannot end the mark, whatever it contains."""
    name = _inside(name)
    return f"[{STAFF}, {name}] " if name else STAFF_MARK


def delivery_mark(delivery: str) -> str:
    """Return the mark of a message that was not delivered as it stands; '' if `delivery` is ''."""
    return f"[{delivery}] " if delivery else ""


def template_instead(name: str) -> str:
    """Return the delivery of a message in whose place an approved template of this name was sent."""
    return f"{NOT_DELIVERED}: the approved template {_inside(name)} was sent instead"


def partly_delivered(delivered: int, parts: int) -> str:
    """Return the delivery of a message of which some parts did not arrive."""
    return f"{PARTLY_DELIVERED}: {delivered} of {parts} parts"


def without_marks(text: str) -> str:
    """Return the text without the marks at its beginning, and unchanged if it begins with none."""
    found = _MARKS.match(text)
    return text[found.end() :] if found else text


def _inside(name: str) -> str:
    """Return the name as it can stand in a mark."""
    return one_line(re.sub(r"[\[\]\x00-\x1f\x7f]", " ", name), LONGEST_NAME)


def may_become_mark(beginning: str) -> bool:
    """Return whether a text that begins so can still begin with a mark that is not complete yet, or be marks alone."""
    rest = without_marks(beginning).lstrip()
    if not rest:
        return True
    words = rest[1:].casefold()
    return rest[0] == "[" and any(_continues(words, each.casefold()) for each in BEGINNINGS)


def _continues(words: str, beginning: str) -> bool:
    details = words.removeprefix(beginning)
    if details == words:
        return beginning.startswith(words)
    return len(details) <= LONGEST_DETAILS and not set(details) & set("[]\n")
