"""The command `manage.py create_client`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.models.client import MOST_WEIGHT
from conversations.services.tenants import setup

QUOTAS = ("weight", "messages_per_minute", "replies_at_once", "tokens_per_day", "cost_per_day", "quota_sentence")


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

        parser.add_argument(
            "--weight",
            type=int,
            default=1,
            help=f"Share of the dispatchers where other clients wait as well: 1 (the default) to {MOST_WEIGHT}.",
        )

        parser.add_argument(
            "--messages-per-minute", type=int, help="Messages in Convo's own JSON that one web process takes for it."
        )
        parser.add_argument("--replies-at-once", type=int, help="Replies that one dispatcher writes for it at a time.")
        parser.add_argument(
            "--tokens-per-day", type=int, help="Tokens that its language models may use in a day. Default: no quota."
        )
        parser.add_argument(
            "--cost-per-day", help="US dollars that its language models may cost in a day. Default: no quota."
        )
        parser.add_argument(
            "--quota-sentence",
            help="What people read once a day where such a quota is used up. Default: a person is called.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            quotas = {name: options[name] for name in QUOTAS if options[name] is not None}
            client = setup.create_client(
                options["name"], options["sub_domain"], time_zone=options["time_zone"], **quotas
            )
        print_json(self, client_id=client.pk, name=client.name, sub_domain=client.sub_domain)
