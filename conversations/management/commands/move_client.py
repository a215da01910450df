"""The command `manage.py move_client`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import refusals
from conversations.services.tenants import servers, setup


class Command(BaseCommand):
    """Move a client to another server of a Citus cluster."""

    help = "Move a client's rows to another server of a Citus cluster, while messages come in."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--to", required=True, help="The server: HOST or HOST:PORT, as in pg_dist_node.")

    def handle(self, *args: Any, **options: Any) -> None:
        host, _, port = options["to"].partition(":")
        if port and not port.isdecimal():
            raise CommandError("--to must be HOST or HOST:PORT.")
        with refusals():
            client = setup.get_client(options["client"])
            before, after = servers.move_client(client, host, int(port) if port else None)
        moved = f"is at {after}" if before == after else f"moved from {before} to {after}"
        self.stdout.write(f"{client.sub_domain} {moved}.")
