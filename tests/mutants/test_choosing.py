"""The tests that are run for a mutant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mutants.choosing import chosen, reaching
from tests.mutants.mutants import Place, places
from tests.mutants.recording import Recording, made

MODULE, OTHER, TEST, SLOW = "memory/a.py", "memory/b.py", "tests/memory/test_a.py", "tests/memory/test_slow.py"
TEXTS = {
    MODULE: """PART = "WHERE a = $1"
WHOLE = f"SELECT 1 {PART}"

def use(rows):
    if rows > 1:
        return WHOLE
    return None

def other(rows, limit=3):
    return rows

def written(word):
    return f"{word} = $1 AND b = $2"

BUILT = written("a")

def late():
    return BUILT
""",
    OTHER: """from memory.a import PART

def elsewhere():
    return PART
""",
}


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A recording of two files of tests, of which one names the module."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "tests/memory").mkdir(parents=True)
    for path, text in {**TEXTS, TEST: "from memory.a import use\n", SLOW: "import memory\n"}.items():
        (tmp_path / path).write_text(text)
    found = Recording(tmp_path, tmp_path / "recording")
    for file, seconds, reached in (
        (
            TEST,
            {f"{TEST}::test_big": 2.0, f"{TEST}::test_small": 1.0},
            {MODULE: {5: [f"{TEST}::test_big", f"{TEST}::test_small"], 6: [f"{TEST}::test_big"]}},
        ),
        (
            SLOW,
            {f"{SLOW}::test_all": 0.1, f"{SLOW}::test_elsewhere": 9.0, f"{SLOW}::test_late": 9.0},
            {
                MODULE: {
                    5: [f"{SLOW}::test_all", f"{SLOW}::test_failed"],
                    10: [f"{SLOW}::test_all"],
                    18: [f"{SLOW}::test_late"],
                },
                OTHER: {4: [f"{SLOW}::test_elsewhere"]},
            },
        ),
    ):
        found.path_of(file).write_text(json.dumps(made(tmp_path, file, seconds, reached)))
    return found


def place(scope: str, line: int) -> Place:
    """Return a place on this line of the module."""
    return next(each for each in places(MODULE, TEXTS[MODULE]) if (each.scope, each.line) == (scope, line))


def names(tests: set[str] | list[str]) -> list[str]:
    """Return the names of the tests without their files."""
    return [test.rpartition("::")[2] for test in tests]


def test_a_line_is_tried_by_the_tests_that_reach_it(recording: Recording) -> None:
    """The head of an `if` is reached by more tests than its body; a test that failed is not used."""
    assert set(names(reaching(place("use", 5), TEXTS.__getitem__, recording))) == {"test_big", "test_small", "test_all"}


def test_a_constant_is_tried_by_the_tests_of_all_who_use_it(recording: Recording) -> None:
    """PART is used by WHOLE, which `use` returns, and by the other module."""
    found = reaching(place("PART", 1), TEXTS.__getitem__, recording)
    assert set(names(found)) == {"test_big", "test_elsewhere"}


def test_a_default_is_tried_by_the_tests_of_its_function(recording: Recording) -> None:
    """The `def` line runs on import; its function's body tells who needs it."""
    assert names(reaching(place("other", 9), TEXTS.__getitem__, recording)) == ["test_all"]


def test_a_function_that_is_called_on_import_is_tried_by_the_tests_of_what_it_made(recording: Recording) -> None:
    """No test reaches the lines of `written`; `late` uses what it wrote."""
    assert names(reaching(place("written", 13), TEXTS.__getitem__, recording)) == ["test_late"]


def test_tests_that_name_the_module_come_first_and_of_them_those_that_know_most(recording: Recording) -> None:
    """The slower test alone reaches what is below the `if`. The fastest of all is in a file of something else."""
    found = chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=9, most=9)
    assert names(found) == ["test_big", "test_small", "test_all"]


def test_the_module_s_own_tests_come_before_others_that_name_it(recording: Recording) -> None:
    """However many lines a second the others reach."""
    (recording.root / SLOW).write_text("from memory.a import use\n")
    reached = {MODULE: {5: [f"{SLOW}::test_all"], 6: [f"{SLOW}::test_all"]}}
    again = made(recording.root, SLOW, {f"{SLOW}::test_all": 0.1}, reached)
    recording.path_of(SLOW).write_text(json.dumps(again))
    found = chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=9, most=9)
    assert names(found) == ["test_big", "test_small", "test_all"]


def test_the_tests_of_a_mutant_are_bounded(recording: Recording) -> None:
    """The chosen tests take no longer than they may, but there is one at least."""
    assert names(chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=1.2, most=9)) == [
        "test_small",
        "test_all",
    ]
    assert names(chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=9, most=1)) == ["test_big"]
    assert names(chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=0, most=9)) == ["test_big"]


def test_a_file_of_tests_that_changed_runs_whole_and_is_recorded_again(recording: Recording) -> None:
    """Its old lines count no more. The other file was recorded with the same modules and stays."""
    (recording.root / TEST).write_text("from memory.a import use, other\n")
    assert recording.outdated() == [TEST]
    found = chosen(place("use", 5), TEXTS.__getitem__, recording, seconds=9, most=9)
    assert found == [TEST, f"{SLOW}::test_all"]


def test_a_new_file_of_tests_that_names_the_module_runs_whole_and_last(recording: Recording) -> None:
    """One that does not name it waits for its record."""
    new = ("tests/memory/test_new.py", "tests/memory/test_other.py")
    (recording.root / new[0]).write_text("from memory.a import use\n")
    (recording.root / new[1]).write_text("from memory import z\n")
    assert recording.outdated() == list(new)
    assert chosen(place("other", 9), TEXTS.__getitem__, recording, seconds=9, most=9) == [f"{SLOW}::test_all", new[0]]


def test_a_module_that_changed_is_recorded_again_with_the_files_that_reach_it(recording: Recording) -> None:
    """The other file of tests does not reach it."""
    assert recording.outdated() == []
    (recording.root / OTHER).write_text("")
    assert recording.outdated() == [SLOW]
