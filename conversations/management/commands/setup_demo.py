"""The command `manage.py setup_demo`."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json
from conversations.services.simulator import demo


class Command(BaseCommand):
    """Create the demo client and the staff user."""

    help = (
        "Create what is missing of a demo client with an API key, sandbox and simulated accounts, and a staff user; "
        "print them as JSON. A key and a password in --quickstart are kept if they are still valid."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quickstart", type=Path, help="The JSON file with the output of an earlier run.")

    def handle(self, *args: Any, **options: Any) -> None:
        print_json(self, **demo.set_up(_known(options["quickstart"])))


def _known(path: Path | None) -> dict[str, str]:
    try:
        known = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in known.items() if isinstance(value, str)}
