"""The command `manage.py retain`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import moment, refusals
from conversations.models import RetentionRule
from conversations.services.retention import retention
from conversations.services.retention.deletions import RetentionRun
from conversations.services.tenants import setup


class Command(BaseCommand):
    """Apply the retention rules."""

    help = "Delete what the retention rules say (each client's policy, else the settings), and write a report."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show what would be deleted; delete nothing.")
        parser.add_argument("--now", help="Delete as if it were this time (ISO 8601 with offset).")
        parser.add_argument(
            "--rule",
            action="append",
            type=lambda name: "sends" if name == RetentionRule.SENDS else name,  # its earlier name
            choices=[rule.shown for rule in RetentionRule],
            help="Apply this rule only; may be repeated.",
        )
        parser.add_argument("--client", help="With --dry-run: count for this client only (its sub-domain).")

    def handle(self, *args: Any, **options: Any) -> None:
        now, names = moment(options["now"]), options["rule"]
        rules = [rule for rule in RetentionRule if not names or rule.shown in names]
        if options["client"] and not options["dry_run"]:
            raise CommandError("--client needs --dry-run: a run is for all clients.")
        if options["dry_run"]:
            with refusals():
                client = setup.get_client(options["client"]) if options["client"] else None
            self._say(retention.preview(now, client, rules), rules, "would be deleted")
            self.stdout.write("Dry run: nothing was changed.")
            return
        done = retention.run(
            now, by="retain", rules=rules, progress=lambda what, count: self.stderr.write(f"  {what}: {count:,} …")
        )
        if done.skipped:
            self.stdout.write("Another run is in progress. Nothing was done.")
            return
        self._say(done, rules, "deleted")
        if errors := done.errors():
            raise CommandError(f"There were errors: {'; '.join(errors)}. The next run continues.")

    def _say(self, found: RetentionRun, rules: list[RetentionRule], what: str) -> None:
        for rule in rules:
            oldest = min((line.oldest for line in found.of(rule) if line.oldest), default=None)
            since = f", the oldest of {oldest:%Y-%m-%d %H:%M}" if oldest else ""
            held = f"; {found.held_back(rule):,} on hold" if found.held_back(rule) else ""
            self.stdout.write(f"{rule.shown}: {found.deleted(rule):,} {what}{since}{held}")
