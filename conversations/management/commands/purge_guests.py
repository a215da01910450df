"""The command `manage.py purge_guests`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import moment
from conversations.services.retention import retention


class Command(BaseCommand):
    """Delete the expired conversations of guests."""

    help = "Delete expired conversations of guests with everything below them, and guests without conversations."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show a count and examples; delete nothing.")
        parser.add_argument("--now", help="Purge as if it were this time (ISO 8601 with offset).")

    def handle(self, *args: Any, **options: Any) -> None:
        now = moment(options["now"])
        if options["dry_run"]:
            count, examples = retention.count_guests_due(now)
            self.stdout.write(f"would be deleted: {count:,} (such as: {', '.join(examples) or 'none'})")
            self.stdout.write("Dry run: nothing was changed.")
            return
        purged = retention.purge_guests(now, lambda what, count: self.stderr.write(f"  {what}: {count:,} …"))
        self.stdout.write(f"Purged guest conversations: {purged:,}.")
