"""Shared by the commands: JSON on standard output, refusals as sentences, contacts, times and numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from conversations.models import Contact
from conversations.services.core.errors import DomainError
from conversations.services.tenants import setup


def print_json(command: BaseCommand, **facts: Any) -> None:
    """Write one JSON object to standard output, for scripts."""
    command.stdout.write(json.dumps(facts, default=str))


def ask_for_contact(parser: CommandParser) -> None:
    """Add the arguments --client, and --contact or --user-id."""
    parser.add_argument("--client", required=True, help="The client's sub-domain.")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--contact", help="The contact's id.")
    who.add_argument("--user-id", help="The contact's user id.")


def contact_of(options: Mapping[str, Any]) -> Contact:
    """Return the contact that the arguments of `ask_for_contact` name; for an alias, the contact it was merged into.

    Raises CommandError, and what `setup.get_client` raises.
    """
    client = setup.get_client(options["client"])
    found = Contact.objects.select_related("client", "merged_into__client").filter(client=client)
    if options["contact"]:
        try:
            contact = found.filter(pk=UUID(options["contact"])).first()
        except ValueError:
            raise CommandError("--contact must be a contact's id.") from None
    else:
        contact = found.filter(user_id=options["user_id"]).first()
    if contact is None:
        raise CommandError("This client has no such contact.")
    return contact.merged_into or contact


@contextmanager
def refusals() -> Iterator[None]:
    """Turn a service's refusal into a CommandError with the same sentence."""
    try:
        yield
    except DomainError as error:
        raise CommandError(str(error)) from None


def moment(text: str | None) -> datetime:
    """Return the time of `--now` (ISO 8601 with offset), or the current time. Raises CommandError for anything else."""
    if not text:
        return timezone.now()
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CommandError(f"--now must be a time such as 2026-01-31T12:00:00+00:00, not {text!r}.")
    return at


def number(text: str) -> float:
    """Return a finite number. Raises ValueError for NaN, which would pass every bound."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
