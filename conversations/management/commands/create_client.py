"""manage.py create_client"""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Makes a client."""

    help = "Make a client (a tenant) with a default assistant, and print it as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        """--name, --sub-domain."""
        parser.add_argument("--name", required=True, help="What it is called.")
        parser.add_argument("--sub-domain", required=True, help="Its short name: lower-case letters, digits, hyphens.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        with refusals():
            client = setup.create_client(options["name"], options["sub_domain"])
        print_json(self, client_id=client.pk, name=client.name, sub_domain=client.sub_domain)
