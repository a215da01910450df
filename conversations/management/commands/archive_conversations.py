"""The command `manage.py archive_conversations`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import moment
from conversations.services.history import archive


class Command(BaseCommand):
    """Archive remembered conversations."""

    help = "Archive remembered conversations after their archive_after: delete the chunks, keep summary and ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show a count and examples; archive nothing.")
        parser.add_argument("--now", help="Archive as if it were this time (ISO 8601 with offset).")

    def handle(self, *args: Any, **options: Any) -> None:
        now = moment(options["now"])
        if options["dry_run"]:
            count, examples = archive.count_due(now)
            self.stdout.write(f"would be archived: {count:,} (such as: {', '.join(examples) or 'none'})")
            self.stdout.write("Dry run: nothing was changed.")
            return
        archived = archive.archive(now, lambda what, count: self.stderr.write(f"  {what}: {count:,} …"))
        self.stdout.write(f"Archived conversations: {archived:,}.")
