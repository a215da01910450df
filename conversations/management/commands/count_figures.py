"""The command `manage.py count_figures`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import moment
from conversations.models import Conversation
from conversations.services.figures import keeping


class Command(BaseCommand):
    """Count the figures of reports for the time before they were kept."""

    help = "Count the figures of reports from the rows that are there. It may be repeated, and changes nothing else."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", help="From this time on (ISO 8601 with offset). Default: the first beginning.")
        parser.add_argument("--until", help="Up to this time (ISO 8601 with offset). Default: now.")
        parser.add_argument("--dry-run", action="store_true", help="Show how many rows there would be.")

    def handle(self, *args: Any, **options: Any) -> None:
        until = moment(options["until"])
        since = moment(options["since"]) if options["since"] else self._first()
        if since is None:
            self.stdout.write("There is no conversation. Nothing was counted.")
            return
        if since >= until:
            raise CommandError("--since must be before --until.")

        def progress(upto: Any, rows: int) -> None:
            self.stderr.write(f"  up to {upto:%Y-%m-%d %H:%M}: {rows:,} rows …")

        rows = keeping.backfill(since, until, progress, dry_run=options["dry_run"])
        self.stdout.write(f"{'Would count' if options['dry_run'] else 'Counted'} {rows:,} rows of figures.")

    def _first(self) -> Any:
        """Return when the first conversation began, None without any."""
        return Conversation.objects.order_by("started_at").values_list("started_at", flat=True).first()
