"""Verifies an export of the audit chain, with nothing but Python's standard library.

    python -m convo_project.verify_audit FILE [--head HASH]

Each line of the export is an entry as JSON. Its hash is the SHA-256, in hexadecimal, of the hash before (64 zeros for
the first), a line feed, and the entry without `hash` as JSON: sorted keys, no blanks, UTF-8. An entry that was changed,
left out or put in between breaks the chain. Entries that were cut off at the end are noticed by the hash of a later
export, or by one that was noted elsewhere: give it as --head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from typing import Any

FIRST = "0" * 64


class BrokenChainError(Exception):
    """The chain is broken; the sentence says where."""


def hash_of(before: str, entry: dict[str, Any]) -> str:
    """Return the hash of an entry that follows the one with the hash `before`."""
    said = {name: value for name, value in entry.items() if name != "hash"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def verify(lines: Iterable[str], head: str = "") -> tuple[int, str]:
    """Return the number of entries and the last hash. Raises BrokenChainError.

    head: a hash that must be among them
    """
    before, number, seen = FIRST, 0, not head
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            given = entry["hash"]
        except (ValueError, KeyError, TypeError):
            raise BrokenChainError(f"Line {number + 1} is no entry.") from None
        number += 1
        if entry.get("number") != number:
            raise BrokenChainError(f"Entry {number} is missing: {entry.get('number')} is in its place.")
        if given != hash_of(before, entry):
            raise BrokenChainError(f"Entry {number} was changed, or the one before it.")
        before, seen = given, seen or given == head
    if not seen:
        raise BrokenChainError("No entry has the hash that was given: entries were cut off, or it is another chain.")
    return number, before


def main() -> int:
    """Verify the file that the command line names and return the exit code."""
    parser = argparse.ArgumentParser(prog="verify_audit", description="Verify an export of the audit chain.")
    parser.add_argument("file", type=argparse.FileType(encoding="utf-8"), help="The export; - for standard input.")
    parser.add_argument("--head", default="", help="A hash that an earlier export ended with.")
    options = parser.parse_args()
    try:
        number, last = verify(options.file, options.head)
    except BrokenChainError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write(f"{number} entries, unbroken. The last hash is {last}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
