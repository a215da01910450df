"""manage.py archive_conversations"""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import moment
from conversations.services.history import archive


class Command(BaseCommand):
    """Archives remembered sessions."""

    help = "Archive the remembered sessions whose archive_after is over: chunks go, summary and ledger stay."

    def add_arguments(self, parser: CommandParser) -> None:
        """--dry-run, --now."""
        parser.add_argument("--dry-run", action="store_true", help="Count, show examples, archive nothing.")
        parser.add_argument("--now", help="Archive as if it were this time (ISO 8601 with offset).")

    def handle(self, *args: Any, **options: Any) -> None:
        """Archive."""
        now = moment(options["now"])
        if options["dry_run"]:
            count, examples = archive.due(now)
            self.stdout.write(f"would be archived: {count:,} (such as: {', '.join(examples) or 'none'})")
            self.stdout.write("Dry run: nothing was changed.")
            return
        archived = archive.archive(now, lambda what, count: self.stderr.write(f"  {what}: {count:,} …"))
        self.stdout.write(f"Archived: {archived:,} sessions.")
