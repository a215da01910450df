"""Fields that several bodies and answers of the API share, and how a body or query string is read."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError, ValidationError

from channels_out.choices import (
    LONGEST_DESCRIPTION,
    LONGEST_ID,
    LONGEST_TITLE,
    MOST_CHOICES,
    InvalidChoicesError,
    read_choices,
)
from conversations.http.envelope import LARGE_NUMBER, has_large_number
from conversations.services.core.errors import InvalidError
from conversations.services.delivery.templates import read_wanted

LONGEST_TEXT = 100_000
OFFERED = (
    "Choices below the text: strings, or objects with title, id and description. Buttons or a list on WhatsApp, quick"
    " replies on Messenger, numbered lines elsewhere. The answer's chunk has the `id` as `metadata.payload`."
)
VALUE = {"oneOf": [{"type": "string", "maxLength": 4_000}, {"type": "number"}]}
TEMPLATE = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 512},
        "language": {"type": "string", "maxLength": 20, "description": "May be left out where there is only one."},
        "variables": {
            "description": "The body's variables: a list in order, or an object by name.",
            "oneOf": [
                {"type": "array", "maxItems": 50, "items": VALUE},
                {"type": "object", "additionalProperties": VALUE},
            ],
        },
        "header": {
            "description": "The text of the header's variable, or the https link of its picture, video or document.",
            "oneOf": [
                {"type": "string", "maxLength": 4_000},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"link": {"type": "string"}, "filename": {"type": "string"}},
                },
            ],
        },
        "buttons": {
            "description": "By position: the end of a URL, a code, or the payload of a quick reply; null for none.",
            "type": "array",
            "items": {"type": "string", "nullable": True},
        },
    },
}
CHOICE = {
    "oneOf": [
        {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE, "pattern": r"\S"},
        {
            "type": "object",
            "required": ["title"],
            "additionalProperties": False,
            "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE, "pattern": r"\S"},
                "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": r"\S"},
                "description": {"type": "string", "maxLength": LONGEST_DESCRIPTION},
            },
        },
    ]
}
NOT_BLANK = r"[^\s\x1c-\x1f\x85]"  # what Python calls blank, also for readers whose \s is narrower


def read(kind: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """Return the valid values of a body or query string. Raises ParseError or ValidationError, which name the field."""
    if not isinstance(data, dict):
        raise ParseError("The body must be a JSON object.")
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class IdField(serializers.UUIDField):
    """An id as text. A number, which DRF would take for an id as well, is refused."""

    def to_internal_value(self, data: Any) -> UUID:
        """Return the id. Raises ValidationError."""
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        found: UUID = super().to_internal_value(data)
        return found


class Text(serializers.CharField):
    """A string that is not blank. Numbers, booleans and characters that cannot be stored are refused."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.allow_blank:
            self.validators.append(RegexValidator(NOT_BLANK, self.error_messages["blank"]))

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Return the string. Raises ValidationError for every other type, before it is converted."""
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


def exact_numbers(value: Any) -> None:
    """Raise ValidationError for an object with numbers that would be changed."""
    if has_large_number(value):
        raise serializers.ValidationError(f"{LARGE_NUMBER[0].upper()}{LARGE_NUMBER[1:]}.")


class Choice(serializers.ChoiceField):
    """One of several words. The error lists them."""

    default_error_messages = {"invalid_choice": "Must be one of {choices}."}

    def to_internal_value(self, data: Any) -> str:
        """Return the word. Raises ValidationError for anything else, which the error does not repeat."""
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(self.choices))
        return data


class Flag(serializers.BooleanField):
    """`true` or `false`. Numbers and words are refused."""

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean. Raises ValidationError for anything else."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


@extend_schema_field(CHOICE)
class ChoiceField(serializers.JSONField):
    """One choice: its title, or an object with title, id and description."""


class ChoicesField(serializers.ListField):
    """The choices below a text, as they were given, once they are known to be valid."""

    child = ChoiceField()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=1, max_length=MOST_CHOICES, help_text=OFFERED, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        """Return the list. Raises ValidationError with the sentence of what is wrong."""
        found: list[Any] = super().to_internal_value(data)
        try:
            read_choices(found)
        except InvalidChoicesError as error:
            raise ValidationError(str(error)) from None
        return found


@extend_schema_field(TEMPLATE)
class TemplateField(serializers.JSONField):
    """A template with its values."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the template. Raises ValidationError with the sentence of what is wrong."""
        try:
            return read_wanted(data)
        except InvalidError as error:
            raise ValidationError(str(error)) from None
