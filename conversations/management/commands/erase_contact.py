"""The command `manage.py erase_contact`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from conversations.management.output import ask_for_contact, contact_of, refusals
from conversations.models import Erasure
from conversations.services.core.ledger import Actor, Kind
from conversations.services.retention import erasure as erasing


class Command(BaseCommand):
    """Erase a contact."""

    help = "Erase everything about a contact, for good, and print the certificate."

    def add_arguments(self, parser: CommandParser) -> None:
        ask_for_contact(parser)
        parser.add_argument("--dry-run", action="store_true", help="Show what would be erased; erase nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            contact = contact_of(options)
            if options["dry_run"]:
                self._count(erasing.preview(contact))
                self.stdout.write("Dry run: nothing was changed.")
                return
            now = timezone.now()
            erasure = erasing.begin(
                contact.pk, actor=Actor(Kind.SYSTEM, "erase_contact"), now=now, client=contact.client
            )
        self._count(erasure.removed)
        erasing.continue_erasures(now)
        erasure = Erasure.objects.get(client=erasure.client_id, pk=erasure.pk)
        if not erasure.finished_at:
            self.stderr.write(
                f"The erasure is not finished ({erasure.problem}). Every sweep continues it. The certificate will "
                f"be on the page of the erasure {erasure.pk} in the back office."
            )
            return
        self.stdout.write(erasure.certificate)

    def _count(self, removed: dict[str, int]) -> None:
        for name, count in removed.items():
            self.stderr.write(f"  {name}: {count:,}")
