"""The choice of the mutants that a run tries, and the ids by which they are known again."""

from __future__ import annotations

from tests.mutants import modules
from tests.mutants.mutants import sample

SOURCE = '''
LIMIT = 3

def late(now, due):
    """Return whether it is late."""
    return now > due and due is not None

def found(rows):
    return rows("SELECT 1 WHERE a = $1 AND NOT b") or A.filter(c=1, d=2)
'''


def test_a_sample_is_the_same_each_time_and_has_each_kind() -> None:
    """Python, SQL and queries take turns."""
    first, second = (sample("m.py", SOURCE, 3) for _ in range(2))
    assert [mutant.id for mutant in first] == [mutant.id for mutant in second]
    assert {mutant.place.kind for mutant in first} == {"python", "sql", "query"}


def test_mutants_keep_their_ids_and_their_order_when_lines_move() -> None:
    """Lines above and another function change nothing for the mutants that were there."""
    moved = "import os\n\n\n" + SOURCE + "\ndef new():\n    return 7\n"
    before = [mutant.id for mutant in sample("m.py", SOURCE, None)]
    after = [mutant.id for mutant in sample("m.py", moved, None)]
    assert [each for each in after if each in before and before.index(each) < 3] == before[:3]
    assert set(before) < set(after)


def test_no_two_mutants_are_the_same_and_all_are_python() -> None:
    """Each mutant has a source and an id of its own, which differs from the original."""
    found = sample("m.py", SOURCE, None)
    assert len({mutant.id for mutant in found}) == len({mutant.source for mutant in found}) == len(found)
    assert SOURCE not in {mutant.source for mutant in found}
    for mutant in found:
        compile(mutant.source, "mutant", "exec")


def test_all_modules_that_decide_are_there() -> None:
    """A module that was moved or renamed is missed by nobody else."""
    assert [module for module in modules.MODULES if not modules.path_of(module).exists()] == []
