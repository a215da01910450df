"""The fields of the forms that the scripts of the transcript page and of the simulator post."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext

from channels_out.choices import Choices, InvalidChoicesError, read_choices
from conversations.services.core.errors import InvalidError, NotFoundError
from conversations.words import sentence_of


@dataclass(frozen=True, slots=True)
class Field(ABC):
    """One field of a form, by the name under which it is posted."""

    name: str

    @abstractmethod
    def value(self, posted: Mapping[str, Any]) -> Any:
        """Return the value that was posted."""


@dataclass(frozen=True, slots=True)
class Text(Field):
    """A text, in one line or several.

    longest: the most characters that are accepted. trimmed: white space around the text is removed.
    """

    label: str = ""
    longest: int = 200
    required: bool = True
    trimmed: bool = True
    rows: int = 1
    placeholder: str = ""

    def value(self, posted: Mapping[str, Any]) -> str:
        """Return the text with \\n line ends. Raises InvalidError if it is too long, or blank and required."""
        text: str = posted.get(self.name, "").replace("\r\n", "\n").replace("\x00", "")
        if self.required and not text.strip():
            raise InvalidError(gettext("Write something first."), code="blank")
        if len(text) > self.longest:
            said = gettext("The text has %(text)s characters. At most %(longest)s are possible.") % {
                "text": f"{len(text):,}",
                "longest": f"{self.longest:,}",
            }
            raise InvalidError(said, code="too_long")
        return text.strip() if self.trimmed else text


@dataclass(frozen=True, slots=True)
class Number(Field):
    """A whole number: a position, or the id of a row."""

    def value(self, posted: Mapping[str, Any]) -> int:
        """Return the number, or 0 if the text is none."""
        return whole_number(posted.get(self.name, ""))


@dataclass(frozen=True, slots=True)
class RowId(Field):
    """A UUID of a row."""

    def value(self, posted: Mapping[str, Any]) -> UUID:
        """Return the id. Raises NotFoundError if the text is none."""
        try:
            return UUID(posted.get(self.name, ""))
        except ValueError:
            raise NotFoundError(gettext("This does not exist any more. Load the page again.")) from None


@dataclass(frozen=True, slots=True)
class Checkbox(Field):
    """A box to tick."""

    def value(self, posted: Mapping[str, Any]) -> bool:
        """Return whether it was ticked."""
        return bool(posted.get(self.name) == "yes")


@dataclass(frozen=True, slots=True)
class Files(Field):
    """Files to upload, at most `most` of them."""

    label: str = ""
    most: int = 10

    def value(self, posted: Mapping[str, Any]) -> list[Any]:
        """Return the uploaded files. Raises InvalidError if there are too many."""
        uploaded = posted.get(self.name) or []
        files = uploaded if isinstance(uploaded, list) else []  # a text under this name is no file
        if len(files) > self.most:
            raise InvalidError(gettext("Choose at most %(most)s files.") % {"most": self.most}, code="too_many")
        return files


@dataclass(frozen=True, slots=True)
class ChoiceLines(Field):
    """Choices below a message, one in each line."""

    label: str = ""
    longest: int = 1_000
    rows: int = 3

    def value(self, posted: Mapping[str, Any]) -> Choices | None:
        """Return the choices; None if there are none. Raises InvalidError."""
        given = posted.get(self.name, "")[: self.longest].replace("\x00", "").splitlines()
        titles = [title for line in given if (title := line.strip())]
        try:
            return read_choices([*titles]) if titles else None
        except InvalidChoicesError as error:
            raise InvalidError(sentence_of(error), code="choices") from None


def values_of(fields: Iterable[Field], posted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the posted values by field name. Raises InvalidError or NotFoundError for the first that is refused."""
    return {field.name: field.value(posted) for field in fields}


def whole_number(text: str) -> int:
    """Return the text as a whole number that the database can hold, or 0 if it is none."""
    return min(int(text), 2**31 - 1) if text.isascii() and text.isdigit() and len(text) < 20 else 0
