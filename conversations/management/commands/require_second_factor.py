"""The command `manage.py require_second_factor`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import second_factor, setup


class Command(BaseCommand):
    """Require a second factor."""

    help = (
        "Require a second factor of everybody who signs in to a client, or stop to. It holds for open sessions too: "
        "whoever has no second factor sets one up before they go on. Superusers belong to every client."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--off", action="store_true", help="Require it no more.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client = setup.get_client(options["client"])
            second_factor.require(client, required=not options["off"])
        print_json(self, client_id=client.pk, requires_second_factor=client.requires_second_factor)
