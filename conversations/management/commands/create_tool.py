"""The command `manage.py create_tool`."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import setup, tools


class Command(BaseCommand):
    """Create a tool."""

    help = (
        "Create a tool at a URL that a client's assistants may call, and print it as JSON with the secret that signs"
        " its calls. The secret is stored encrypted and cannot be shown again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--name", required=True, help="Name by which models call it: letters, digits, - and _.")
        parser.add_argument("--url", required=True, help="URL that calls are posted to.")
        parser.add_argument("--description", default="", help="For the model: what it does and when to call it.")
        parser.add_argument(
            "--parameters", metavar="FILE", help="File with the JSON Schema of the arguments. Default: it takes none."
        )
        parser.add_argument("--timeout", type=float, default=20, help="Seconds for a call, 1 to 60. Default: 20.")
        parser.add_argument("--read-only", action="store_true", help="It only looks something up.")
        parser.add_argument("--may-repeat", action="store_true", help="It does the same Idempotency-Key once.")
        parser.add_argument("--needs-approval", action="store_true", help="A colleague must approve each call.")
        parser.add_argument("--no-files", action="store_true", help="Files of its answer are not sent to the person.")
        parser.add_argument(
            "--assistant", action="append", default=[], help="Key of an assistant that may call it. Default: all."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            tool, secret = tools.create_tool(
                setup.get_client(options["client"]),
                options["name"],
                url=options["url"],
                description=options["description"],
                parameters=_schema(options["parameters"]),
                assistants=options["assistant"],
                timeout_seconds=options["timeout"],
                changes_something=not options["read_only"],
                may_repeat=options["may_repeat"] or options["read_only"],
                needs_approval=options["needs_approval"],
                sends_files=not options["no_files"],
            )
        print_json(self, client_id=tool.client_id, tool_id=tool.pk, name=tool.name, url=tool.url, secret=secret)


def _schema(path: str | None) -> Any:
    """Return the JSON in the file, None without a file. Raises CommandError."""
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"--parameters: {path} has no JSON that can be read ({type(error).__name__}).") from None
