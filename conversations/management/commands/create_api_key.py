"""The command `manage.py create_api_key`."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from conversations.management.output import print_json, refusals
from conversations.models import Scope
from conversations.services.tenants import api_keys, setup


class Command(BaseCommand):
    """Create an API key."""

    help = "Create an API key for a client and print it as JSON. The key is shown once; only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--name", default="key", help="The purpose of the key.")
        parser.add_argument(
            "--scopes",
            help=f"What the key may do, separated by commas: {', '.join(Scope.values)}. Default: all but the last two.",
        )
        parser.add_argument("--days", type=int, help="For how many days the key is valid. Default: without an end.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client = setup.get_client(options["client"])
            scopes, days = options["scopes"], options["days"]
            row, key = api_keys.create_api_key(
                client,
                options["name"],
                scopes=None if scopes is None else [each.strip() for each in scopes.split(",")],
                expires_at=None if days is None else timezone.now() + timedelta(days=days),
            )
        print_json(
            self,
            client_id=client.pk,
            name=row.name,
            prefix=row.prefix,
            api_key=key,
            scopes=row.scopes,
            expires_at=row.expires_at,
        )
