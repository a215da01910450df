"""What commands share: JSON on standard output, refusals as sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from conversations.services.errors import DomainError


def print_json(command: BaseCommand, **facts: Any) -> None:
    """One object on standard output, for scripts."""
    command.stdout.write(json.dumps(facts, default=str))


@contextmanager
def refusals() -> Iterator[None]:
    """What a service refuses is said in its own sentence, and the command fails."""
    try:
        yield
    except DomainError as error:
        raise CommandError(str(error)) from None


def moment(text: str | None) -> datetime:
    """`--now`: a time in ISO 8601 with its offset, or the clock's. Raises CommandError."""
    if not text:
        return timezone.now()
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CommandError(f"--now must be a time such as 2026-01-31T12:00:00+00:00, not {text!r}.")
    return at
