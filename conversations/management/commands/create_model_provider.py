"""The command `manage.py create_model_provider`."""

import json
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import number, print_json, refusals
from conversations.management.secrets import secret
from conversations.services.tenants import setup
from memory.language_models.contract import Kind


class Command(BaseCommand):
    """Create a model provider, or replace its settings."""

    help = (
        "Create a model provider of a client or of the installation, or replace the settings of the one with the same"
        " name, and print it as JSON. Key and headers are stored encrypted and never printed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("--client", help="The client's sub-domain.")
        owner.add_argument("--shared", action="store_true", help="The assistants of every client may use it.")
        parser.add_argument("--kind", required=True, choices=[kind.value for kind in Kind], help="Its protocol.")
        parser.add_argument("--name", required=True, help="Name for staff, by which create_assistant finds it.")
        parser.add_argument("--api-key", default="", metavar="KEY", help="The key. A - reads it from standard input.")
        parser.add_argument("--base-url", default="", help="Base URL, if it is not the provider's own.")
        parser.add_argument(
            "--header",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="A header of every request; repeat it for each one. NAME=- reads the value from standard input.",
        )
        parser.add_argument(
            "--query",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="A query parameter of every request; repeat it for each one.",
        )
        parser.add_argument("--body", default="{}", help="Body parameters of every request, as a JSON object.")
        parser.add_argument("--timeout", type=number, help="Seconds for an answer. Default: OPENAI_TIMEOUT_SECONDS.")

    def handle(self, *args: Any, **options: Any) -> None:
        headers = dict(_pair(each, "--header") for each in options["header"])
        with refusals():
            provider = setup.create_model_provider(
                None if options["shared"] else setup.get_client(options["client"]),
                kind=options["kind"],
                name=options["name"],
                api_key=secret(options["api_key"], "--api-key -"),
                base_url=options["base_url"].rstrip("/"),
                headers={name: secret(value, f"--header {name}=-") for name, value in headers.items()},
                query=dict(_pair(each, "--query") for each in options["query"]),
                body=_object(options["body"]),
                timeout_seconds=options["timeout"],
            )
        print_json(
            self,
            client_id=provider.client_id,
            model_provider_id=provider.pk,
            name=provider.name,
            kind=provider.kind,
            base_url=urlsplit(provider.base_url)._replace(query="").geturl(),
            has_key=bool(provider.credentials),
            headers=sorted(provider.headers),
        )


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        # The argument is not repeated: it may be the secret itself.
        raise CommandError(f"{option} must be NAME=VALUE.")
    return name, value


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError('--body must be a JSON object, such as {"service_tier": "flex"}.') from None
