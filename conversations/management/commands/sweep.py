"""The command `manage.py sweep`."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from conversations.management.output import moment
from conversations.models import RetentionRule
from conversations.services.history import archive
from conversations.services.jobs import sweep
from conversations.services.retention import retention


class Command(BaseCommand):
    """Age the conversations."""

    help = "Make conversations stale, expire them, delete expired guests, and release claims of dead processes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show what would be done, with examples.")
        parser.add_argument("--now", help="Sweep as if it were this time (ISO 8601 with offset).")

    def handle(self, *args: Any, **options: Any) -> None:
        now = moment(options["now"])
        if options["dry_run"]:
            self._preview(sweep.preview(now))
            self._others(now)
            return
        report = sweep.sweep(now, lambda what, count: self.stderr.write(f"  {what}: {count:,} …"))
        if report.skipped:
            self.stdout.write("Another sweep is in progress. Nothing was done.")
            return
        self.stdout.write(
            f"Swept: {report.stale:,} stale, {report.expired:,} expired, "
            f"{report.purged:,} guest conversations deleted, "
            f"{report.handed_back:,} handed back, {report.recovered:,} freed, "
            f"{report.tombstones:,} old tombstones dropped, {report.replayed:,} events replayed."
        )

    def _preview(self, report: sweep.SweepReport) -> None:
        counts = asdict(report)
        for name in ("stale", "expired", "purged", "handed_back"):
            examples = ", ".join(report.examples.get(name, [])) or "none"
            self.stdout.write(f"would be {name.replace('_', ' ')}: {counts[name]:,} (such as: {examples})")

    def _others(self, now: datetime) -> None:
        """Print what the other jobs would do at that time."""
        count, examples = archive.count_due(now)
        self.stdout.write(f"would be archived by archive: {count:,} (such as: {', '.join(examples) or 'none'})")
        rules = [rule for rule in RetentionRule.values if rule != RetentionRule.GUESTS]  # which the sweep purges itself
        found = retention.preview(now, rules=rules)
        for rule in rules:
            if deleted := found.deleted(rule):
                self.stdout.write(f"would be deleted by clean_up ({rule}): {deleted:,}")
        self.stdout.write("Dry run: nothing was changed.")
