"""The command `manage.py verify_certificate`."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import refusals
from conversations.services.retention import erasure

LONGEST = 10_000_000  # characters; each session of a person takes about 90


class Command(BaseCommand):
    """Verify the certificate of an erasure."""

    help = (
        "Verify the certificate of an erasure from standard input, and print its content. The SECRET_KEY that signed "
        "it must be set, or be among SECRET_KEY_FALLBACKS. The database is not needed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--about",
            metavar="ID",
            help="Fail unless the certificate names the contact, conversation or chat with this id.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            facts = erasure.verify(sys.stdin.read(LONGEST))
        if (about := options["about"]) is not None:
            what = erasure.kind_of_id(facts, about)
            if not what:
                raise CommandError("The certificate is valid, but names nothing of this id.")
            self.stderr.write(f"It names the {what} of this id.")
        self.stdout.write(json.dumps(facts, indent=2))
