"""Validation of bodies and query strings."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ParseError


def read(kind: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """Return the valid values of a body or query string. Raises ParseError or ValidationError, which name the field."""
    if not isinstance(data, dict):
        raise ParseError("The body must be a JSON object.")
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
