"""The list of accepted survivors, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import accepted, report
from tests.mutants.accepted import Accepted
from tests.mutants.mutants import sample
from tests.mutants.trying import Trial

SOURCE = "def late(now, due):\n    return now > due\n"
ENTRY = """[[accepted]]
module = 'm.py'
scope = 'late'
was = 'return now > due'
becomes = 'return now >= due'
reason = "Nothing falls into one instant."
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of one module."""
    (tmp_path / "m.py").write_text(SOURCE)
    return tmp_path


def entries(root: Path, text: str = ENTRY) -> list[Accepted]:
    """Return what the list says."""
    file = root / "accepted.toml"
    file.write_text(text)
    return accepted.load(file)


def trial(ended: str, source: str = SOURCE) -> Trial:
    """Return the module's mutant that ended so."""
    [mutant] = sample("m.py", source, None)
    return Trial(mutant, ["test"], 1.0, ended)


def test_an_accepted_survivor_does_not_count_wherever_its_line_is(root: Path) -> None:
    """The line moved; the entry holds."""
    moved = trial("survived", "A = B\n\n\n" + SOURCE)
    assert report.count([moved], entries(root)) == report.Count(killed=0, survived=0, accepted=1)
    assert report.count([moved], []) == report.Count(killed=0, survived=1, accepted=0)


def test_an_entry_whose_line_changed_is_reported(root: Path) -> None:
    """The entry of a line that reads differently now is not found any more, nor is one of a module that is gone."""
    assert accepted.vanished(entries(root), root) == []
    (root / "m.py").write_text(SOURCE.replace("due)", "due_at)").replace("> due", "> due_at"))
    assert accepted.vanished(entries(root), root) == entries(root)
    (root / "m.py").unlink()
    assert accepted.vanished(entries(root), root) == entries(root)


@pytest.mark.parametrize(
    "text", [ENTRY.replace("Nothing falls into one instant.", " "), ENTRY.replace("scope", "place")]
)
def test_an_entry_without_a_reason_or_with_another_word_is_refused(root: Path, text: str) -> None:
    """The problem names the file."""
    with pytest.raises(ValueError, match=r"accepted\.toml"):
        entries(root, text)


def test_the_entry_that_a_run_prints_is_accepted_once_it_has_a_reason(root: Path) -> None:
    """Printed entries can be pasted."""
    survivor = trial("survived")
    text = report.entry(survivor).replace('reason = ""', 'reason = "One instant."')
    assert report.is_accepted(survivor, entries(root, text))


def test_a_run_fails_below_ninety_per_cent_and_time_outs_are_killed() -> None:
    """Nine of ten is enough; a mutant that no test reaches, or whose tests cannot run, survived."""
    enough = [trial("killed")] * 8 + [trial("timed out"), trial("unreached")]
    assert report.count(enough, []).percentage >= report.ENOUGH
    assert report.count([*enough, trial("broken")], []).percentage < report.ENOUGH


def test_a_survivor_is_shown_as_a_diff_with_the_command_that_tries_it_again() -> None:
    """The command names the module and the mutant."""
    shown = report.survivor(trial("survived"))
    assert "-    return now > due\n+    return now >= due" in shown
    assert f"--only {trial('survived').mutant.id}" in shown


def test_the_list_of_the_project_can_be_read() -> None:
    """Every entry has a reason."""
    assert all(entry.reason for entry in accepted.load())
