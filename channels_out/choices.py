"""Choices that a message offers: buttons, lists and quick replies where the channel has them, else numbered text.

A channel has forms for them, each with limits (`ChoiceForm`). The first form that all choices fit is used; where none
does, they are listed with numbers in the text, and the person answers by the number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from channels_out.errors import SentenceError
from channels_out.shapes import clean_text

MOST_CHOICES = 10
LONGEST_TITLE = 72  # characters
LONGEST_DESCRIPTION = 200
LONGEST_ID = 200
LONGEST_LABEL = 20
LABEL = "Options"  # on the button that opens a list, where no other word is given

_FIELDS = {"id": LONGEST_ID, "title": LONGEST_TITLE, "description": LONGEST_DESCRIPTION}
_NUMBER = re.compile(r"\s*(?:\[keys\]\s*)?[(#]?([0-9]{1,2})[.):#]?\s*")


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice. `id` is the program's own word for it, which comes back with the answer."""

    id: str
    title: str
    description: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the choice as plain JSON, without an empty description."""
        shown = {"id": self.id, "title": self.title}
        return shown | ({"description": self.description} if self.description else {})


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of one message. `label` stands on the button that opens a list."""

    options: tuple[Choice, ...]
    label: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the choices as plain JSON."""
        return {"options": [each.as_json() for each in self.options], "label": self.label}


@dataclass(frozen=True, slots=True)
class ChoiceForm:
    """A channel's form of choices: how many, and the characters of a title, a description and the text above them."""

    name: str
    most: int
    title: int
    description: int = 0
    text: int = 0

    def fits(self, choices: Choices) -> bool:
        """Return whether all choices can be offered so."""
        return len(choices.options) <= self.most and all(
            len(each.title) <= self.title and len(each.description) <= self.description for each in choices.options
        )


class InvalidChoicesError(SentenceError):
    """Choices are refused. The message is a sentence that names the field."""


def read_choices(options: Any, label: Any = "") -> Choices:
    """Return the choices of a list of strings (titles) or of objects with title, id? and description?.

    Raises InvalidChoicesError.
    """
    if not isinstance(options, list) or not 1 <= len(options) <= MOST_CHOICES:
        raise InvalidChoicesError("choices must be a list of 1 to %(most)s.", most=MOST_CHOICES)
    read = tuple(_read(each) for each in options)
    for name in ("title", "id"):
        if len({getattr(each, name).casefold() for each in read}) < len(read):
            raise InvalidChoicesError("Each choice needs a %(name)s of its own.", name=name)
    return Choices(read, _text("label", "" if label is None else label, LONGEST_LABEL, may_be_empty=True))


def choices_from_json(stored: Any) -> Choices | None:
    """Return the choices that `as_json` made; None for anything else, since a program's metadata may have any keys."""
    if not isinstance(stored, dict):
        return None
    try:
        return read_choices(stored.get("options"), stored.get("label"))
    except InvalidChoicesError:
        return None


def form_of(choices: Choices, forms: Sequence[ChoiceForm]) -> ChoiceForm | None:
    """Return the first form that all choices fit, None if they are to be listed in the text."""
    return next((form for form in forms if form.fits(choices)), None)


def with_numbers(text: str, choices: Choices | None) -> str:
    """Return the text with the choices listed below it by numbers, and unchanged without choices."""
    if choices is None:
        return text
    listed = (
        f"{number}. {': '.join(filter(None, (each.title, each.description)))}"
        for number, each in enumerate(choices.options, start=1)
    )
    return "\n\n".join([text.rstrip(), "\n".join(listed)])


def number_in(text: str) -> int | None:
    """Return the number that the text is, with a dot or brackets around it or as pressed keys; None for all else."""
    found = _NUMBER.fullmatch(text)
    return int(found[1]) if found else None


def chosen(choices: Choices, number: int) -> Choice | None:
    """Return the choice of this number, counted from 1."""
    return choices.options[number - 1] if 1 <= number <= len(choices.options) else None


def _read(option: Any) -> Choice:
    given = {"title": option} if isinstance(option, str) else option
    if not isinstance(given, dict):
        raise InvalidChoicesError("A choice must be a string, or an object with a title.")
    if unknown := sorted(str(name) for name in given.keys() - _FIELDS.keys()):
        raise InvalidChoicesError(
            "A choice has no field %(name)s; it has %(fields)s.", name=repr(unknown[0][:40]), fields=", ".join(_FIELDS)
        )
    title = _text("title", given.get("title"), LONGEST_TITLE)
    described = _text("description", given.get("description") or "", LONGEST_DESCRIPTION, may_be_empty=True)
    return Choice(_text("id", given.get("id") or title, LONGEST_ID), title, described)


def _text(name: str, value: Any, longest: int, *, may_be_empty: bool = False) -> str:
    words = " ".join(clean_text(value).split()) if isinstance(value, str) else None
    if words is None or (not words and not may_be_empty):
        raise InvalidChoicesError("%(name)s must be a string that is not blank.", name=name)
    if len(words) > longest:
        raise InvalidChoicesError("%(name)s must have at most %(longest)s characters.", name=name, longest=longest)
    return words
