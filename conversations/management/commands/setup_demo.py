"""manage.py setup_demo"""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json
from conversations.services.simulator import demo


class Command(BaseCommand):
    """Makes what a new user tries Convo with."""

    help = (
        "See to it that there is a demo client with an API key and sandbox accounts, and a staff user; print them as "
        "JSON. What --quickstart says is kept where it still holds."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """--quickstart."""
        parser.add_argument("--quickstart", type=Path, help="The JSON file that an earlier run's facts were kept in.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set it up."""
        print_json(self, **demo.set_up(_known(options["quickstart"])))


def _known(path: Path | None) -> dict[str, str]:
    try:
        known = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in known.items() if isinstance(value, str)}
