"""The command `manage.py create_assistant`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import number, print_json, refusals
from conversations.models import Assistant
from conversations.services.tenants import agent_secrets, setup


class Command(BaseCommand):
    """Create an assistant."""

    help = "Create an assistant for a client and print it as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--key", required=True, help="Short name, unique for the client.")
        parser.add_argument("--name", help="Name that people see. Default: the key.")
        parser.add_argument("--system-prompt", help="The system prompt.")
        parser.add_argument(
            "--engine", choices=Assistant.EngineName.values, help="The engine that writes replies. Default: auto."
        )
        parser.add_argument("--provider", help="Name of the model provider. Default: the installation's.")
        parser.add_argument("--model", help="The language model. Default: OPENAI_MODEL.")
        parser.add_argument("--reasoning-effort", help="How long the model thinks: none, low, medium, high.")
        parser.add_argument("--fallback-provider", help="Name of the second model's provider. Default: the first's.")
        parser.add_argument("--fallback-model", help="Second model, asked if the first is down or refuses.")
        parser.add_argument("--retell-agent-id", help="Id of the chat agent at Retell, for the engine retell.")
        parser.add_argument("--agent-url", help="URL of the client's own agent, for the engine agent.")
        parser.add_argument(
            "--agent-secret",
            help="Secret that signs requests to it: whsec_ and base64. Default: made and printed once.",
        )
        parser.add_argument("--agent-timeout-seconds", type=number, help="Longest wait for its answer. Default: 30.")
        parser.add_argument(
            "--agent-deadline-seconds", type=int, help="Longest wait for a reply that it gives later. Default: 600."
        )
        parser.add_argument("--opener", help="Text that makes a Retell agent greet. Default: Hola.")
        parser.add_argument("--temperature", type=number, help="Temperature of the model, 0 to 2.")
        parser.add_argument("--max-tokens", type=int, help="Longest reply, in tokens.")
        parser.add_argument("--history-length", type=int, help="Number of last chunks in the prompt. Default: 10.")
        parser.add_argument("--context-budget", type=int, help="Largest prompt, in tokens. Default: 8000.")
        parser.add_argument("--template-name", help="WhatsApp template that is sent outside the reply window.")
        parser.add_argument("--template-language", help="Language of the template. Default: en.")
        parser.add_argument(
            "--template-variables", help="Values of the template's variables, one a line: {text}, {name|there}."
        )
        parser.add_argument("--template-header", help="Text of the template's header, or the https link of its media.")
        parser.add_argument("--disclosure", help="Sentence before its first words: that it is a machine.")
        parser.add_argument("--fallback", help="Sentence that is sent if no reply can be written.")
        parser.add_argument("--copilot", action="store_true", help="Offer the assistant in the copilot.")
        parser.add_argument(
            "--proposes", action="store_true", help="Let its replies wait in the inbox until a colleague sends them."
        )
        parser.add_argument("--greeting", help="First sentence of a phone call.")
        parser.add_argument("--spoken-language", help="Language of phone calls, such as es-MX. Default: en-US.")
        parser.add_argument("--voice", help="Voice, by the phone provider's name, such as Polly.Joanna.")
        parser.add_argument("--transfer-number", help="A person's phone, to which calls are put through.")
        parser.add_argument("--default", action="store_true", help="Make it the client's default assistant.")

    def handle(self, *args: Any, **options: Any) -> None:
        names = ["name", "system_prompt", "engine", "model", "temperature", "max_tokens", "fallback", "disclosure"]
        names += ["history_length", "context_budget", "greeting", "spoken_language", "voice", "transfer_number"]
        names += ["template_name", "template_language", "template_variables", "template_header"]
        names += ["retell_agent_id", "opener", "reasoning_effort", "fallback_model"]
        names += ["agent_url", "agent_timeout_seconds", "agent_deadline_seconds"]
        fields = {name: options[name] for name in names if options[name] is not None}
        fields["in_copilot"], fields["proposes"] = options["copilot"], options["proposes"]
        with refusals():
            client = setup.get_client(options["client"])
            for option, field in (("provider", "model_provider"), ("fallback_provider", "fallback_provider")):
                if options[option]:
                    fields[field] = setup.get_model_provider(client, options[option])
            fields["agent_secrets"], secret = agent_secrets.first_secrets(options["engine"], options["agent_secret"])
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
            **({"agent_secret": secret} if secret else {}),
        )
