"""The command `manage.py create_event_endpoint`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.models import EventKind
from conversations.services.events.endpoints import create_endpoint
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Create an endpoint of events."""

    help = (
        "Create a URL to which a client's events are posted, signed, and print it as JSON with its secret. "
        "The secret is shown once; it is stored encrypted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--url", required=True, help="The address to post to.")
        parser.add_argument(
            "--events", default="", help=f"Types, separated by commas: {', '.join(EventKind.values)}. Default: all."
        )
        parser.add_argument(
            "--private", action="store_true", help="Post the events of the copilot's private conversations too."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        kinds = [each.strip() for each in options["events"].split(",") if each.strip()]
        with refusals():
            client = setup.get_client(options["client"])
            endpoint, secret = create_endpoint(client, options["url"], kinds=kinds, private=options["private"])
        print_json(
            self,
            id=endpoint.pk,
            client_id=client.pk,
            url=endpoint.url,
            events=endpoint.kinds,
            private=endpoint.private,
            secret=secret,
        )
