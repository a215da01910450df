"""The command `manage.py rebuild_memory`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from memory import rebuilding
from memory.services import StoreError

SET_UP = "Set them (see .env.example), then run the same command."


class Command(BaseCommand):
    """Write global memory again."""

    help = "Write all of global memory to a store again, or remove it from Pinecone. Resumes after an interruption."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "store",
            choices=["database", "pinecone"],
            help="database: the index of words in PostgreSQL. pinecone: the vectors.",
        )
        parser.add_argument("--empty", action="store_true", help="Delete all of Convo's vectors from Pinecone.")
        parser.add_argument("--restart", action="store_true", help="Start from the beginning instead of resuming.")
        parser.add_argument("--dry-run", action="store_true", help="Show how much there is to do; change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["empty"] and options["store"] == "database":
            raise CommandError("--empty works with pinecone only: PostgreSQL holds memory itself.")
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
                self.stderr.write(f"  resuming after {rebuild.done:,}")
            rebuilding.run(rebuild, lambda done, left: self.stderr.write(f"  {done:,} done, {left:,} left …"))
        except StoreError as error:
            what_next = "Run the same command to resume." if error.code != "not_configured" else SET_UP
            raise CommandError(f"{error} ({error.code}) {what_next}") from None
        self.stdout.write(f"{options['store']}: {rebuild.done:,} {what} {done_to_it}.")
