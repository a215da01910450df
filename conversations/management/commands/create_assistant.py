"""manage.py create_assistant"""

import math
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import print_json, refusals
from conversations.models import Assistant
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Makes an assistant."""

    help = "Make an assistant of a client and print it as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        """What it is and says."""
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--key", required=True, help="Its short name, unique in its client.")
        parser.add_argument("--name", help="What it is called. Default: its key.")
        parser.add_argument("--system-prompt", help="What it is told to be.")
        parser.add_argument("--engine", choices=Assistant.EngineName.values, help="Who writes. Default: auto.")
        parser.add_argument("--model", help="Default: OPENAI_MODEL.")
        parser.add_argument("--retell-agent-id", help="The chat agent's id at Retell, for the engine retell.")
        parser.add_argument("--opener", help="What a Retell agent is told to make it greet. Default: Hola.")
        parser.add_argument("--temperature", type=number, help="0 to 2.")
        parser.add_argument("--max-tokens", type=int, help="The longest reply.")
        parser.add_argument("--history-length", type=int, help="How many of the last chunks it sees. Default: 10.")
        parser.add_argument("--context-budget", type=int, help="Tokens it is given at most. Default: 8000.")
        parser.add_argument("--template-name", help="The WhatsApp template that goes where free text is not taken.")
        parser.add_argument("--template-language", help="Its language. Default: en.")
        parser.add_argument("--fallback", help="What it says when no reply can be written.")
        parser.add_argument("--copilot", action="store_true", help="Let the client's users talk to it in the copilot.")
        parser.add_argument("--greeting", help="What a caller hears first.")
        parser.add_argument("--spoken-language", help="What callers speak and hear, such as es-MX. Default: en-US.")
        parser.add_argument("--voice", help="The phone provider's name of a voice, such as Polly.Joanna.")
        parser.add_argument("--default", action="store_true", help="Make it the client's default.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        names = ["name", "system_prompt", "engine", "model", "temperature", "max_tokens", "fallback"]
        names += ["history_length", "context_budget", "greeting", "spoken_language", "voice"]
        names += ["template_name", "template_language"]
        names += ["retell_agent_id", "opener"]
        fields = {name: options[name] for name in names if options[name] is not None}
        fields["in_copilot"] = options["copilot"]
        with refusals():
            client = setup.client_named(options["client"])
            assistant = setup.create_assistant(
                client, options["key"], make_default=options["default"], **({"name": options["key"]} | fields)
            )
        print_json(
            self,
            client_id=client.pk,
            assistant_id=assistant.pk,
            key=assistant.key,
            engine=assistant.engine,
            is_default=assistant.is_default,
        )


def number(text: str) -> float:
    """A finite one: NaN would pass every bound."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
