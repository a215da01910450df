"""manage.py rebuild_memory"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from memory import rebuilding
from memory.services import StoreError

SET_UP = "Set them (see .env.example), and run the same command."


class Command(BaseCommand):
    """Writes memory anew."""

    help = "Write all of memory anew into a store, or take it out of Pinecone. What broke off is resumed."

    def add_arguments(self, parser: CommandParser) -> None:
        """The store; --empty, --restart, --dry-run."""
        parser.add_argument("store", choices=["database", "pinecone"], help="PostgreSQL's index of words, or Pinecone.")
        parser.add_argument("--empty", action="store_true", help="Delete every vector of our ledger from Pinecone.")
        parser.add_argument("--restart", action="store_true", help="From the beginning, whatever broke off before.")
        parser.add_argument("--dry-run", action="store_true", help="Say how much there is to do, and do nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rebuild."""
        if options["empty"] and options["store"] == "database":
            raise CommandError("--empty is for Pinecone: what is in PostgreSQL is memory itself.")
        kind = rebuilding.Kind.EMPTY_PINECONE if options["empty"] else options["store"]
        what, done_to_it = ("vectors", "deleted") if options["empty"] else ("sessions", "written")
        if options["dry_run"]:
            done, left = rebuilding.preview(kind, restart=options["restart"])
            again = f", after {done:,} before it broke off" if done else ""
            self.stdout.write(
                f"{options['store']}: {left:,} {what} would be {done_to_it}{again}.\nDry run: nothing was changed."
            )
            return
        try:
            rebuild = rebuilding.start(kind, restart=options["restart"])
            if rebuild.done:
                self.stderr.write(f"  going on after {rebuild.done:,}")
            rebuilding.run(rebuild, lambda done, left: self.stderr.write(f"  {done:,} done, {left:,} left …"))
        except StoreError as error:
            what_next = "The same command goes on where it broke off." if error.code != "not_configured" else SET_UP
            raise CommandError(f"{error} ({error.code}) {what_next}") from None
        self.stdout.write(f"{options['store']}: {rebuild.done:,} {what} {done_to_it}.")
