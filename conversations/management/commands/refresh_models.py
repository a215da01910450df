"""The command `manage.py refresh_models`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from conversations.management.output import refusals
from conversations.services.tenants import model_listing
from conversations.services.tenants.model_listing import Listing

MOST_SHOWN = 40


class Command(BaseCommand):
    """Read the model providers' lists of models."""

    help = (
        "Read the list of models of each active model provider, and print what is new, what is gone and what ends when."
        " It fails if no provider answered."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--provider", default="", metavar="NAME", help="Only the model providers of this name.")
        parser.add_argument("--dry-run", action="store_true", help="Print what would change, and store nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            listings = model_listing.refresh_all(timezone.now(), options["provider"], dry_run=options["dry_run"])
        for listing in listings:
            for line in _lines(listing):
                self.stdout.write(line)
        if not listings:
            self.stdout.write("There is no active model provider. Create one with create_model_provider.")
        elif all(listing.error for listing in listings):
            raise CommandError("No model provider gave its list.")


def _lines(listing: Listing) -> list[str]:
    """Return what the command prints of one provider."""
    if listing.error:
        return [f"{listing.provider}: not read: {listing.error}."]
    lines = [f"{listing.provider}: {listing.count} model{'' if listing.count == 1 else 's'}."]
    lines += [f"  new:  {_some(listing.new)}"] if listing.new else []
    lines += [f"  gone: {_some(listing.gone)}"] if listing.gone else []
    return lines + [f"  ends on {day}: {model}" for model, day in sorted(listing.ending, key=lambda each: each[::-1])]


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more
