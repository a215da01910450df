"""manage.py verify_certificate"""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import refusals
from conversations.services.retention import erasure

LONGEST = 10_000_000  # characters; each session of a person takes about 90


class Command(BaseCommand):
    """Checks a certificate of an erasure."""

    help = (
        "Check a certificate of an erasure, given on standard input, and print what it says. It needs the SECRET_KEY "
        "that signed it, or that key among SECRET_KEY_FALLBACKS, and no row of the database."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """--about."""
        parser.add_argument(
            "--about", metavar="ID", help="Fail unless it names the contact, session or chat of this id."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check it."""
        with refusals():
            facts = erasure.verify(sys.stdin.read(LONGEST))
        if (about := options["about"]) is not None:
            what = erasure.named(facts, about)
            if not what:
                raise CommandError("It is a certificate of ours, and names nothing of this id.")
            self.stderr.write(f"It names the {what} of this id.")
        self.stdout.write(json.dumps(facts, indent=2))
