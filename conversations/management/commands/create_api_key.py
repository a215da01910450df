"""The command `manage.py create_api_key`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import api_keys, setup


class Command(BaseCommand):
    """Create an API key."""

    help = "Create an API key for a client and print it as JSON. The key is shown once; only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--name", default="key", help="The purpose of the key.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client = setup.get_client(options["client"])
            row, key = api_keys.create_api_key(client, options["name"])
        print_json(self, client_id=client.pk, name=row.name, prefix=row.prefix, api_key=key)
