"""The command `manage.py distribute`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import refusals
from conversations.services.tenants import servers


class Command(BaseCommand):
    """Place the tables on the servers of a Citus cluster."""

    help = "Place the tables on the servers of a Citus cluster: those that clients share on each, the others by client."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show what would be done.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            if options["dry_run"]:
                self._preview(servers.placing())
                return
            count = servers.distribute(self.stderr.write)
        self.stdout.write(f"Placed {count} tables." if count else "Every table is placed. Nothing was done.")

    def _preview(self, placing: servers.Placing) -> None:
        for table, kind in placing.to_do():
            self.stdout.write(f"would be placed {servers.WORDS[kind]}: {table}")
        self.stdout.write(f"on the coordinator: {', '.join(placing.local)}")
        self.stdout.write("Dry run: nothing was changed.")
