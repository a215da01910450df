"""manage.py erase_contact"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from conversations.management.output import refusals
from conversations.models import Erasure
from conversations.services.clients import setup
from conversations.services.forgetting import erasing
from conversations.services.people import contacts
from conversations.services.session.ledger import Actor, Kind


class Command(BaseCommand):
    """Erases a person."""

    help = "Remove all that is held of a contact, for good, and print the certificate."

    def add_arguments(self, parser: CommandParser) -> None:
        """--client, --user-id, --dry-run."""
        parser.add_argument("--client", required=True, help="The client's sub-domain.")
        parser.add_argument("--user-id", required=True, help="The contact's user id.")
        parser.add_argument("--dry-run", action="store_true", help="Count what would be removed, remove nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Erase."""
        with refusals():
            client = setup.client_named(options["client"])
            contact = contacts.known_as(client, options["user_id"])
            if contact is None:
                raise CommandError("This client has no such contact.")
            if options["dry_run"]:
                self._count(erasing.preview(contact))
                self.stdout.write("Dry run: nothing was changed.")
                return
            now = timezone.now()
            erasure = erasing.begin(contact.pk, actor=Actor(Kind.SYSTEM, "erase_contact"), now=now, client=client)
        self._count(erasure.removed)
        erasing.go_on(now)
        erasure = Erasure.objects.get(pk=erasure.pk)
        if not erasure.finished_at:
            self.stderr.write(f"Global memory is not cleared yet ({erasure.problem}); the sweep goes on with it.")
        self.stdout.write(erasure.certificate or f"The certificate of {erasure.pk} follows.")

    def _count(self, removed: dict[str, int]) -> None:
        for name, count in removed.items():
            self.stderr.write(f"  {name}: {count:,}")
