"""A mutant is tried in a child, on a copy, and with tests that pass without it."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import trying, worker
from tests.mutants.mutants import sample
from tests.mutants.trying import Trial

SOURCE = "def late(now, due):\n    return now > due\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with one module whose test wants `late(1, 1)` to be false."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(SOURCE)

    def run_tests(tests: list[str], found: Path, *, fresh: bool) -> int:
        if runpy.run_path("m.py")["late"](1, 1):
            found.write_text(tests[0])
            return 1
        return 0

    monkeypatch.setattr(worker, "run_tests", run_tests)
    return tmp_path


def job(source: str) -> dict[str, Any]:
    """Return what a worker is told."""
    return {"module": "m.py", "source": source, "tests": ["test_m.py::test_late"], "limit": 60}


def test_a_fault_that_a_test_notices_is_reported_with_the_test(folder: Path) -> None:
    """Each mutant is seen by its child, though the files are of the same size and written at the same moment."""
    faulty = worker.attempt(job(SOURCE.replace(">", "<")), worker.FIRST_SECOND, fresh=False)
    noticed = worker.attempt(job(SOURCE.replace(" > ", ">=")), worker.FIRST_SECOND + 1, fresh=False)
    assert (faulty["ended"], faulty["by"]) == ("passed", "")
    assert (noticed["ended"], noticed["by"]) == ("failed", "test_m.py::test_late")


def test_the_module_is_as_before_afterwards(folder: Path) -> None:
    """Its text and its time are, so that a compiled file of the fault is not taken for it."""
    before = (folder / "m.py").stat().st_mtime_ns
    worker.attempt(job("raise SystemExit\n"), worker.FIRST_SECOND, fresh=False)
    assert (folder / "m.py").read_text() == SOURCE
    assert (folder / "m.py").stat().st_mtime_ns == before


def test_a_child_that_hangs_is_ended_with_what_it_started(folder: Path) -> None:
    """The result is None, and the pipe that the child's own child held is closed."""
    reading, writing = os.pipe()

    def hang() -> int:
        if os.fork() == 0:
            signal.pause()
        signal.pause()
        return 0

    assert worker.in_child(hang, 0.2) is None
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize("fault", ["raise SystemExit(0)\n", "raise KeyboardInterrupt\n", "import nothing_like_it\n"])
def test_a_module_that_cannot_be_imported_is_noticed(folder: Path, fault: str) -> None:
    """A child that raises anything ends with a failure and never passes for success."""
    assert worker.attempt(job(fault), worker.FIRST_SECOND, fresh=False)["ended"] == "failed"


class Tests:
    """A worker whose tests fail by themselves if their name says so."""

    def run(self, module: str, source: str, tests: list[str], limit: float) -> dict[str, Any]:
        failing = [test for test in tests if "broken" in test]
        return {"ended": "failed" if failing else "passed", "by": failing[0] if failing else "", "seconds": 1.0}


def test_a_test_that_fails_without_a_fault_kills_nothing() -> None:
    """A failing test is told from those that pass, one after the other."""
    tests = ["broken one", "sound", "broken two"]
    assert trying.passing(tests, Tests(), ("m.py", SOURCE)) == {"sound"}  # type: ignore[arg-type]


def test_every_mutant_is_tried_once_by_one_of_the_workers() -> None:
    """A mutant without tests survives as unreached."""
    [mutant] = sample("m.py", SOURCE, None)
    trials = [Trial(mutant, tests, 1.0) for tests in ([], ["sound"], ["broken"])]
    told: list[Trial] = []
    trying.try_all(trials, [Tests(), Tests()], told.append)  # type: ignore[list-item]
    assert [trial.ended for trial in trials] == ["unreached", "survived", "killed"]
    assert sorted(map(id, told)) == sorted(map(id, trials))
