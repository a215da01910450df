"""manage.py create_api_key"""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import api_keys, setup


class Command(BaseCommand):
    """Makes an API key."""

    help = "Make an API key for a client and print it as JSON. It is shown this once: only its hash is kept."

    def add_arguments(self, parser: CommandParser) -> None:
        """--client, --name."""
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--name", default="key", help="What the key is for.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        with refusals():
            client = setup.client_named(options["client"])
            row, key = api_keys.create_api_key(client, options["name"])
        print_json(self, client_id=client.pk, name=row.name, prefix=row.prefix, api_key=key)
