"""The command `manage.py export_audit`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import refusals
from conversations.services.core import audit_chain
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Export an audit chain."""

    help = (
        "Write a client's audit chain to standard output, an entry a line as JSON. "
        "`python -m convo_project.verify_audit` verifies it, anywhere."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--client", help="The client's sub-domain. Default: what belongs to no client.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            client_id = setup.get_client(options["client"]).pk if options["client"] else None
        for line in audit_chain.export(client_id):
            self.stdout.write(line)
