"""Run the mutation tests: `make mutants ARGS="--module core/appending --all"`. Exits with 1 below 90 % killed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.mutants import accepted, choosing, modules, mutants, report, trying
from tests.mutants.mutants import Mutant
from tests.mutants.recording import Recording
from tests.mutants.trying import Trial

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
SECONDS = 45.0  # of tests for a mutant, as the recording measured them
MOST = 150


def main(arguments: list[str]) -> int:
    """Try the mutants, print what survived, and return the exit code."""
    chosen = _parse(arguments)
    folder = Path(os.environ["CONVO_HOME"]) / "mutants"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        named = [found for part in chosen.module or [""] for found in modules.named(part)]
        entries = [entry for entry in accepted.load() if entry.module in named]
    except ValueError as problem:
        say(str(problem))
        return 2
    recording = Recording(ROOT, folder / "recording")
    with trying.workers(ROOT, folder, chosen.workers) as those:
        if not chosen.keep:
            _record(recording, those)
        found = [mutant for module in dict.fromkeys(named) for mutant in _mutants(module, chosen)]
        trials = [_trial(mutant, recording, chosen.seconds) for mutant in found]
        say(f"{len(trials)} mutants of {len(named)} modules.")
        _try(trials, entries, those)
    return _report(trials, entries, whole=not chosen.only)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--module", action="append", help="only modules whose path contains this; may be repeated")
    parser.add_argument("--all", action="store_true", help="all mutants instead of a sample")
    number = int(os.environ.get("MUTANTS", "8"))
    parser.add_argument("--number", type=int, default=number, help="mutants of each module (also MUTANTS=…)")
    parser.add_argument("--only", action="append", help="only the mutant of this id; may be repeated")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes, each with a database of its own")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of tests for each mutant")
    parser.add_argument("--keep", action="store_true", help="keep the recording, though files changed")
    return parser.parse_args(arguments)


def _record(recording: Recording, those: list[trying.Worker]) -> None:
    files = recording.outdated()
    if not files:
        return
    say(f"Recording which lines the tests of {len(files)} files reach.")
    numbers = iter(range(1, len(files) + 1))
    trying.record_all(recording, files, those, lambda file: say(f"{next(numbers):>4}/{len(files)} recorded {file}"))
    recording.forget()


def _mutants(module: str, chosen: argparse.Namespace) -> list[Mutant]:
    source = _text(module)
    if chosen.only:
        return [mutant for mutant in mutants.sample(module, source, None) if mutant.id in chosen.only]
    return mutants.sample(module, source, None if chosen.all else chosen.number)


def _trial(mutant: Mutant, recording: Recording, seconds: float) -> Trial:
    tests = choosing.chosen(mutant.place, _text, recording, seconds=seconds, most=MOST)
    return Trial(mutant, tests, sum(recording.seconds.get(test, 60.0) for test in tests))


def _try(trials: list[Trial], entries: list[accepted.Accepted], those: list[trying.Worker]) -> None:
    numbers = iter(range(1, len(trials) + 1))

    def told(trial: Trial) -> None:
        excused = report.is_accepted(trial, entries)
        say(report.progress(trial, next(numbers), len(trials), accepted=excused))
        if not trial.is_killed and not excused:
            say(report.survivor(trial))

    trying.try_all(trials, those, told)
    again = _killed_by_broken_tests(trials, those[0])
    if again:
        say(f"{len(again)} mutants again, because the test that failed also fails without a fault.")
        numbers = iter(range(1, len(again) + 1))
        trying.try_all(again, those, told)


def _killed_by_broken_tests(trials: list[Trial], worker: trying.Worker) -> list[Trial]:
    """Return the trials that a test ended which fails without a fault as well; they will not use it again."""
    killers = sorted({trial.by for trial in trials if "::" in trial.by})
    if not killers:
        return []
    module = trials[0].mutant.place.module
    sound = trying.passing(killers, worker, (module, _text(module)))
    again = [trial for trial in trials if "::" in trial.by and trial.by not in sound]
    for trial in again:
        trial.not_used |= set(killers) - sound
    return again


def _report(trials: list[Trial], entries: list[accepted.Accepted], *, whole: bool) -> int:
    survivors = [trial for trial in trials if not trial.is_killed and not report.is_accepted(trial, entries)]
    for line in _complaints(trials, entries, whole=whole):
        say(line)
    if survivors:
        say("\nSurvivors. Write a test for each, or accept it in tests/mutants/accepted.toml with a reason:")
        for trial in survivors:
            say(report.survivor(trial))
            say(report.entry(trial))
    say("\n" + report.table(trials, entries))
    total = report.count(trials, entries)
    return 0 if total.percentage >= report.ENOUGH else 1


def _complaints(trials: list[Trial], entries: list[accepted.Accepted], *, whole: bool) -> Iterator[str]:
    """Yield what is wrong with the list of accepted survivors."""
    for trial in trials:
        if trial.is_killed and report.is_accepted(trial, entries):
            yield f"Accepted, but killed: {trial.mutant.id} in {trial.mutant.place.scope}. Remove it."
    for entry in accepted.vanished(entries, ROOT) if whole else ():
        yield f"Accepted, but not found any more: {entry.module}, {entry.scope}: {entry.was}. Remove it."


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@cache
def _text(module: str) -> str:
    return mutants.read(ROOT, module)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through `finally`, where the workers are ended
    sys.exit(main(sys.argv[1:]))
