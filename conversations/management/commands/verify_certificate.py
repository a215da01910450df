"""manage.py verify_certificate"""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand

from conversations.management.output import refusals
from conversations.services.forgetting import erasing


class Command(BaseCommand):
    """Checks a certificate of an erasure."""

    help = "Check a certificate of an erasure, given on standard input, and print what it says."

    def handle(self, *args: Any, **options: Any) -> None:
        """Check it."""
        with refusals():
            facts = erasing.verify(sys.stdin.read())
        self.stdout.write(json.dumps(facts, indent=2))
