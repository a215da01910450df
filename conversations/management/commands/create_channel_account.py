"""The command `manage.py create_channel_account`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_out import registry
from channels_out.kinds import Channel
from conversations.management.output import print_json, refusals
from conversations.management.secrets import secret
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Create a channel account, or replace its credentials."""

    help = (
        "Create a client's account at a provider, or replace its credentials, and print it as JSON. "
        "Credentials are stored encrypted and never printed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--channel", required=True, choices=[str(channel) for channel in Channel])
        parser.add_argument("--provider", required=True, choices=registry.providers())
        parser.add_argument(
            "--address", required=True, help="The account's address at the provider (phone number id, page id, number)."
        )
        parser.add_argument(
            "--credential",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="A credential; repeat it for each one that the provider needs ("
            + "; ".join(
                f"{each.provider}: {', '.join(each.credentials)}" for each in registry.ADAPTERS if each.credentials
            )
            + "). NAME=- reads the value from standard input.",
        )
        parser.add_argument("--base-url", default="", help="Base URL of the provider's API, if it is not the default.")
        parser.add_argument("--assistant", default="", help="Key of the assistant that answers on this account.")
        parser.add_argument("--name", default="", help="Name for staff.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            account = setup.create_channel_account(
                setup.get_client(options["client"]),
                channel=options["channel"],
                provider=options["provider"],
                address=options["address"],
                credentials=dict(_credential(each) for each in options["credential"]),
                base_url=options["base_url"].rstrip("/"),
                assistant=options["assistant"],
                name=options["name"],
            )
        print_json(
            self,
            channel_account_id=account.pk,
            channel=account.channel,
            provider=account.provider,
            address=account.address,
            webhook=f"/webhooks/{account.channel}/inbound",
        )


def _credential(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        # The argument is not repeated: it may be the secret itself.
        raise CommandError("--credential must be NAME=VALUE, such as access_token=EAAG…")
    return name, secret(value, f"--credential {name}=-")
