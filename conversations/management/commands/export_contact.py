"""The command `manage.py export_contact`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from conversations.management.output import ask_for_contact, contact_of, print_json, refusals
from conversations.services.core.ledger import Actor, Kind
from conversations.services.export import person


class Command(BaseCommand):
    """Export everything about a contact."""

    help = "Export everything about a contact as a zip: JSON lines, one file for each kind, and a page to read."

    def add_arguments(self, parser: CommandParser) -> None:
        ask_for_contact(parser)
        parser.add_argument("--to", required=True, help="The file to write. It is replaced only by a complete export.")

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            contact = contact_of(options)
            export = person.export(
                contact.pk,
                actor=Actor(Kind.SYSTEM, "export_contact"),
                now=timezone.now(),
                client=contact.client,
                progress=lambda kind, count: self.stderr.write(f"  {kind}: {count:,}"),
            )
        target = Path(options["to"])
        with _whole_or_not(target) as file:
            for piece in export.pieces():
                file.write(piece)
        print_json(self, file=str(target), bytes=target.stat().st_size, rows=export.counts)


@contextmanager
def _whole_or_not(target: Path) -> Iterator[IO[bytes]]:
    """Yield a file that only its owner can read, and that replaces the target when the block ends.

    An interruption leaves the target unchanged and at most a `.part` beside it, which the next attempt overwrites.
    """
    if target.exists() and not target.is_file():
        raise CommandError(f"{target} is a folder or a device. --to must name a file.")
    part = target.with_name(target.name + ".part")
    try:
        part.unlink(
            missing_ok=True
        )  # a new one follows: somebody else may have this one open, or have put a link there
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CommandError(f"{target} cannot be written: {error.strerror or error}.") from None
        raise
