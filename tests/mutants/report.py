"""The output of a run of the mutation tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.mutants.accepted import Accepted
from tests.mutants.trying import Trial

ENOUGH = 90.0  # per cent of the mutants that are not accepted


@dataclass(frozen=True, slots=True)
class Count:
    """The number of mutants of a module that were killed, survived, and survived as accepted."""

    killed: int
    survived: int
    accepted: int

    @property
    def percentage(self) -> float:
        """Return the killed of those that are not accepted, in per cent; 100 of none."""
        counted = self.killed + self.survived
        return 100.0 * self.killed / counted if counted else 100.0


def count(trials: Iterable[Trial], accepted: Sequence[Accepted]) -> Count:
    """Count how the trials ended."""
    killed = survived = excused = 0
    for trial in trials:
        if trial.is_killed:
            killed += 1
        elif is_accepted(trial, accepted):
            excused += 1
        else:
            survived += 1
    return Count(killed, survived, excused)


def is_accepted(trial: Trial, accepted: Sequence[Accepted]) -> bool:
    """Return whether a mutant is in the list of accepted survivors."""
    return any(entry.covers(trial.mutant) for entry in accepted)


def table(trials: Sequence[Trial], accepted: Sequence[Accepted]) -> str:
    """Return a line for each module and one for all."""
    modules = list(dict.fromkeys(trial.mutant.place.module for trial in trials))
    lines = [f"{'module':<52} {'killed':>6} {'survived':>8} {'accepted':>8} {'':>6}"]
    for module in [*modules, ""]:
        found = count((each for each in trials if module in {"", each.mutant.place.module}), accepted)
        name = module.removeprefix("conversations/services/") or "all"
        lines.append(f"{name:<52} {found.killed:>6} {found.survived:>8} {found.accepted:>8} {found.percentage:>5.0f}%")
    return "\n".join(lines)


def progress(trial: Trial, number: int, of: int, *, accepted: bool) -> str:
    """Return the line of a trial that has ended."""
    mutant = trial.mutant
    ended = "accepted" if accepted and not trial.is_killed else trial.ended
    place = f"{mutant.place.module.removeprefix('conversations/services/')}:{mutant.place.line}"
    return f"{number:>4}/{of} {ended:<9} {trial.seconds:>5.0f} s  {mutant.id} {place} {mutant.place.operator}"


def survivor(trial: Trial) -> str:
    """Return a survivor as a diff, with the command that tries it again."""
    mutant = trial.mutant
    seen = {
        "unreached": "no test reaches it in its own process",
        "broken": "its tests could not be run",
    }.get(trial.ended, f"{len(trial.tests)} tests passed")
    again = f'make mutants ARGS="--module {mutant.place.module.removesuffix(".py")} --only {mutant.id}"'
    return f"\n{mutant.id}  {mutant.place.operator} in {mutant.place.scope}: {seen}\n{again}\n{mutant.diff}"


def entry(trial: Trial) -> str:
    """Return the survivor as an entry of accepted.toml, without its reason."""
    mutant = trial.mutant
    fields = {"module": mutant.place.module, "scope": mutant.place.scope, "was": mutant.was, "becomes": mutant.becomes}
    lines = [f"{name} = '''{text}'''" if "'" in text else f"{name} = '{text}'" for name, text in fields.items()]
    return "\n".join(["[[accepted]]", *lines, 'reason = ""'])
