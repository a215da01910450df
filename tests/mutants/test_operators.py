"""The faults that are put into Python and into SQL."""

from __future__ import annotations

import pytest
from cosmic_ray.mutating import mutate_code

from tests.mutants.mutants import Mutant, sample
from tests.mutants.operators import KINDS, Provider

OPERATORS = {name: operator for kind in KINDS.values() for name, operator in kind.items()}


def faults(operator: str, code: str) -> list[str]:
    """Return the code with each of the operator's faults."""
    found = []
    while (mutated := mutate_code(code, Provider()[operator](), len(found))) is not None:
        found.append(mutated)
    return found


def in_sql(operator: str, statement: str) -> list[str]:
    """Return the statement with each of the operator's faults."""
    return [
        fault.removeprefix('x = """').removesuffix('"""\n') for fault in faults(operator, f'x = """{statement}"""\n')
    ]


def of(source: str) -> list[Mutant]:
    """Return all mutants of a module with this source."""
    return sample("core/module.py", source, None)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_each_operator_does_what_its_examples_say(name: str) -> None:
    """The first fault of each example's code is the one that the example shows."""
    for example in OPERATORS[name].examples():
        operator = OPERATORS[name](**example.operator_args)
        mutated = mutate_code(example.pre_mutation_code, operator, example.occurrence)
        assert (mutated or example.pre_mutation_code).split() == example.post_mutation_code.split()


@pytest.mark.parametrize(
    ("operator", "statement", "expected"),
    [
        (
            "SqlDropCondition",
            "SELECT 1 FROM t WHERE a = $1 AND (b OR c) AND NOT d ORDER BY e",
            [
                "SELECT 1 FROM t WHERE (b OR c) AND NOT d ORDER BY e",
                "SELECT 1 FROM t WHERE a = $1 AND NOT d ORDER BY e",
                "SELECT 1 FROM t WHERE a = $1 AND (c) AND NOT d ORDER BY e",
                "SELECT 1 FROM t WHERE a = $1 AND (b) AND NOT d ORDER BY e",
                "SELECT 1 FROM t WHERE a = $1 AND (b OR c) ORDER BY e",
            ],
        ),
        (
            "SqlDropCondition",
            "SELECT 1 FROM t WHERE a BETWEEN $1 AND $2 AND b",
            ["SELECT 1 FROM t WHERE b", "SELECT 1 FROM t WHERE a BETWEEN $1 AND $2"],
        ),
        ("SqlDropCondition", "DELETE FROM t WHERE a < $1 RETURNING id", ["DELETE FROM t WHERE true RETURNING id"]),
        (
            "SqlDropCondition",
            "WHERE CASE WHEN a THEN b ELSE c END AND {IS_NEW}",
            ["WHERE {IS_NEW}", "WHERE CASE WHEN a THEN b ELSE c END"],
        ),
        (
            "SqlComparison",
            "UPDATE t SET a = $1, b = c = d FROM u WHERE t.id = u.id AND e <= '<'",
            [
                "UPDATE t SET a = $1, b = c <> d FROM u WHERE t.id = u.id AND e <= '<'",
                "UPDATE t SET a = $1, b = c = d FROM u WHERE t.id <> u.id AND e <= '<'",
                "UPDATE t SET a = $1, b = c = d FROM u WHERE t.id = u.id AND e < '<'",
            ],
        ),
        ("SqlComparison", "SELECT m->>$1 WHERE a::int <> 1", ["SELECT m->>$1 WHERE a::int = 1"]),
        (
            "SqlNot",
            "WHERE a IS NOT NULL AND NOT EXISTS (SELECT 1) AND b NOT IN ('NOT') AND c IS NULL",
            [
                "WHERE a IS NULL AND NOT EXISTS (SELECT 1) AND b NOT IN ('NOT') AND c IS NULL",
                "WHERE a IS NOT NULL AND EXISTS (SELECT 1) AND b NOT IN ('NOT') AND c IS NULL",
                "WHERE a IS NOT NULL AND NOT EXISTS (SELECT 1) AND b IN ('NOT') AND c IS NULL",
                "WHERE a IS NOT NULL AND NOT EXISTS (SELECT 1) AND b NOT IN ('NOT') AND c IS NOT NULL",
            ],
        ),
        (
            "SqlExtreme",
            "SELECT max(a), LEAST(b, c) WHERE $1 ORDER BY d DESC",
            [
                "SELECT min(a), LEAST(b, c) WHERE $1 ORDER BY d DESC",
                "SELECT max(a), GREATEST(b, c) WHERE $1 ORDER BY d DESC",
                "SELECT max(a), LEAST(b, c) WHERE $1 ORDER BY d ASC",
            ],
        ),
        (
            "SqlNumber",
            "SELECT a1 + 1 WHERE $12 AND b = '3' AND EXISTS (SELECT 1 FROM c) -- 4",
            [
                "SELECT a1 + 2 WHERE $12 AND b = '3' AND EXISTS (SELECT 1 FROM c) -- 4",
                "SELECT a1 + 0 WHERE $12 AND b = '3' AND EXISTS (SELECT 1 FROM c) -- 4",
            ],
        ),
        (
            "SqlLock",
            "SELECT 1 FROM s, t FOR NO KEY UPDATE OF s, t SKIP LOCKED",
            ["SELECT 1 FROM s, t", "SELECT 1 FROM s, t FOR NO KEY UPDATE OF s, t"],
        ),
        (
            "SqlCase",
            "SELECT CASE WHEN a THEN b WHEN c = $1 THEN d ELSE e END",
            [
                "SELECT CASE WHEN NOT (a) THEN b WHEN c = $1 THEN d ELSE e END",
                "SELECT CASE WHEN c = $1 THEN d ELSE e END",
                "SELECT CASE WHEN a THEN b WHEN NOT (c = $1) THEN d ELSE e END",
                "SELECT CASE WHEN a THEN b ELSE e END",
            ],
        ),
        (
            "SqlCoalesce",
            "SELECT COALESCE(f(a, b), c, $1)",
            ["SELECT COALESCE(c, $1)", "SELECT COALESCE(f(a, b), c)"],
        ),
    ],
)
def test_sql_loses_one_decision_at_a_time(operator: str, statement: str, expected: list[str]) -> None:
    """Each decision of the statement is lost once; texts, comments, assignments and placeholders stay."""
    assert in_sql(operator, statement) == expected


def test_sql_in_f_strings_is_changed_around_what_is_inserted() -> None:
    """Braces are one word, whatever stands in them."""
    code = "x = f\"SELECT 1 WHERE {a if b == 'AND' else c} AND d = {{e}}\"\n"
    assert faults("SqlComparison", code) == [code.replace("d =", "d <>")]
    assert code.replace(" AND d = {{e}}", "") in faults("SqlDropCondition", code)


@pytest.mark.parametrize("text", ["Send a key and a name.", "Not found", "a < b", "where it is"])
def test_sentences_are_no_sql(text: str) -> None:
    """A text without SQL has no faults of SQL."""
    assert [each for name in KINDS["sql"] for each in faults(name, f'x = "{text}"\n')] == []


def test_a_query_loses_one_keyword_at_a_time() -> None:
    """Keywords of queries are dropped; those of other calls are not."""
    code = "x = A.filter(Q(a=1) | Q(b=2), c=3, d=4).exclude(e=5).order_by(f(g=6))\n"
    assert faults("DropKeyword", code) == [
        code.replace("c=3, ", ""),
        code.replace(", d=4", ""),
        code.replace("Q(a=1)", "Q()"),
        code.replace("Q(b=2)", "Q()"),
        code.replace("e=5", ""),
    ]


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring: SELECT 1 WHERE a = $1 AND b."""\n',
        "def f(a: int | None, b: list[int] | str) -> int | None: ...\n",
        "log.info('%s', 1 + 2)\n",
        "def f():\n    raise ConflictError(f'At most {1 + 2}.', code='x')\n",
        "class A:\n    __slots__ = ('a' if 1 else 'b',)\n",
        "@dataclass(frozen=True, slots=True)\nclass A:\n    a: int | None\n",
        "from a import (b, c)\n",
        "def f_in_cluster(a):\n    return a > 1\n",
    ],
)
def test_what_is_no_logic_has_no_mutants(source: str) -> None:
    """Docstrings, annotations, log lines, error sentences, slots and decorators' arguments are left alone.

    So are functions that run on a cluster alone, which tests/citus tries.
    """
    assert [mutant.diff for mutant in of(source)] == []


def test_the_value_behind_an_annotation_is_logic() -> None:
    """`a: int | None = 1` has a number to change and no type."""
    assert {mutant.becomes for mutant in of("a: int | None = 1\n")} == {"a: int | None = 2", "a: int | None = 0"}
