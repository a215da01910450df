"""The command `manage.py create_client`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Create a client."""

    help = "Create a client (a tenant) with a default assistant, and print it as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", required=True, help="Name that people see.")
        parser.add_argument("--sub-domain", required=True, help="Short name: lower-case letters, digits, hyphens.")
        parser.add_argument(
            "--time-zone",
            default="UTC",
            help="Time zone in which assistants are told the time, such as America/Bogota.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client = setup.create_client(options["name"], options["sub_domain"], time_zone=options["time_zone"])
        print_json(self, client_id=client.pk, name=client.name, sub_domain=client.sub_domain)
