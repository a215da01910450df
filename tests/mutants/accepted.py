"""The survivors that are accepted, with reasons: `accepted.toml`.

An entry names the module, the function or constant, and the lines before and after, with single spaces. Moved lines do
not matter; a changed line does, because its reason may hold no longer.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutants import Mutant, made, places, read

FILE = Path(__file__).with_name("accepted.toml")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A survivor that no test needs to notice, and why."""

    module: str
    scope: str
    was: str
    becomes: str
    reason: str

    def covers(self, mutant: Mutant) -> bool:
        """Return whether the mutant is this one."""
        return (self.module, self.scope, self.was, self.becomes) == (
            *(mutant.place.module, mutant.place.scope),
            *(mutant.was, mutant.becomes),
        )


def load(file: Path = FILE) -> list[Accepted]:
    """Return the entries. Raises ValueError for one without a reason or with a word too many."""
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("accepted", []) if file.exists() else []
    found = []
    for entry in entries:
        try:
            each = Accepted(**{name: " ".join(text.split()) for name, text in entry.items()})
        except TypeError as problem:
            raise ValueError(
                f"{file.name}: an entry needs module, scope, was, becomes and reason: {entry}"
            ) from problem
        if not each.reason:
            raise ValueError(f"{file.name}: the entry of {each.module}, {each.scope}, has no reason.")
        found.append(each)
    return found


def vanished(entries: list[Accepted], root: Path) -> list[Accepted]:
    """Return the entries that no mutant of the modules is any more."""
    gone = []
    for entry in entries:
        if not (root / entry.module).exists():
            gone.append(entry)
            continue
        source = read(root, entry.module)
        there = [place for place in places(entry.module, source) if place.scope == entry.scope]
        if not any(entry.covers(mutant) for mutant in made(source, there)):
            gone.append(entry)
    return gone
