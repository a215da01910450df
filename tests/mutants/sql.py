"""Faults in SQL that stands in Python's strings.

A string is SQL if it contains a word of SQL in capitals or a placeholder such as `$1`. It is cut into words; a `{…}` of
an f-string or of `format` counts as one word, whatever is in it. Brackets and CASE … END are levels: a condition ends
where its level ends or where another word of the statement begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.mutants.edits import Edit, EditOperator

_LITERAL = re.compile(r"(?is)^[a-z]*('''|\"\"\"|'|\")(.*)\1$")
_IS_SQL = re.compile(
    r"\$\d|\b(?:SELECT|UPDATE \w+|INSERT INTO|DELETE FROM|WHERE|EXISTS|COALESCE|GREATEST|LEAST|IS NULL|IS NOT NULL"
    r"|ORDER BY|FOR UPDATE|SKIP LOCKED|CASE WHEN|AND [a-z({$]|OR [a-z({$]|NOT [a-z({$])"
)
_WORD = re.compile(
    r"""(?x)
    (?P<space>\s+ | \\n | --[^\n]*)
  | (?P<text>E?'(?:[^']|'')*' | \\?"(?:[^"\\])*\\?")
  | (?P<hole>\{\{\{\{\}\}\}\} | \{\{[^{}]*\}\} | \{(?:[^{}]|\{[^{}]*\})*\})
  | (?P<placeholder>\$\d+ | %\(\w+\)s | %s)
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign><=|>=|<>|!=|=>|::|->>|->|@>|<@|\|\||&&|.)
    """
)
_CLAUSES = {
    *("AND", "OR", "WHERE", "ON", "HAVING", "GROUP", "ORDER", "LIMIT", "OFFSET", "RETURNING", "FOR", "THEN", "WHEN"),
    *("ELSE", "UNION", "AS", "JOIN", "LEFT", "RIGHT", "INNER", "CROSS", "FULL", "FROM", "SET", "SELECT", "USING"),
    *("WINDOW", "FILTER", "DO", "VALUES", "WITH", "INTERSECT", "EXCEPT", ",", ";"),
}
_OPENS_CONDITION = {"WHERE", "ON", "HAVING", "WHEN", "("}
_COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "=": "<>", "<>": "="}
_OTHER_EXTREME = {
    "GREATEST": "LEAST",
    "LEAST": "GREATEST",
    "max": "min",
    "min": "max",
    "bool_or": "bool_and",
    "bool_and": "bool_or",
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of SQL. `level` is the number of brackets and CASEs that are open around it."""

    kind: str
    text: str
    start: int
    end: int
    level: int

    def __eq__(self, other: object) -> bool:
        """Compare with a keyword or sign by its text; a name in double quotes is no keyword."""
        return self.text == other if isinstance(other, str) else self is other

    __hash__ = object.__hash__


def words(literal: str) -> list[Word]:
    """Return the words of the SQL in a Python literal, with offsets in the literal; none if it is not SQL."""
    matched = _LITERAL.match(literal)
    if not matched or not _IS_SQL.search(matched[2]):
        return []
    found: list[Word] = []
    at, end, level = matched.start(2), matched.end(2), 0
    while at < end and (word := _WORD.match(literal, at, end)):
        kind, text = str(word.lastgroup), word[0]
        level -= text in {")", "END"}
        if kind != "space":
            found.append(Word(kind, text, word.start(), word.end(), level))
        level += text in {"(", "CASE"}
        at = word.end()
    return found


class SqlOperator(EditOperator):
    """An operator on the SQL of a literal."""

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield the edits of a string that is SQL."""
        if node.type in {"string", "fstring"} and not is_docstring(node):
            yield from self.sql_edits(words(node.get_code(include_prefix=False)))

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield the edits of these words."""
        raise NotImplementedError


class SqlDropCondition(SqlOperator):
    """One condition of several is dropped; one that stands alone becomes true."""

    samples = (('x = "SELECT 1 WHERE a = $1 AND b"', 'x = "SELECT 1 WHERE b"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield an edit for each condition."""
        for at, word in enumerate(found):
            if word.text in {"AND", "OR"} and not _is_between(found, at):
                last = _last_of_condition(found, at)
                if last > at:
                    yield Edit(found[at - 1].end if at else word.start, found[last].end, "")
            elif word.text in _OPENS_CONDITION and at + 1 < len(found):
                last = _last_of_condition(found, at)
                after = found[last + 1] if last + 1 < len(found) else None
                if last == at:
                    continue
                if after is not None and after.text in {"AND", "OR"} and after.level == _inside(word):
                    if last + 2 < len(found):
                        yield Edit(found[at + 1].start, found[last + 2].start, "")
                elif word.text in {"WHERE", "HAVING"}:
                    yield Edit(found[at + 1].start, found[last].end, "true")


class SqlComparison(SqlOperator):
    """A comparison includes its limit or excludes it; = and <> are exchanged."""

    samples = (('x = "SELECT 1 WHERE a < $1"', 'x = "SELECT 1 WHERE a <= $1"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield an edit for each comparison."""
        for at, word in enumerate(found):
            if word.kind == "sign" and word.text in _COMPARISONS and not (word == "=" and _assigns(found, at)):
                yield Edit(word.start, word.end, _COMPARISONS[word.text])


class SqlNot(SqlOperator):
    """NOT is dropped; IS NULL becomes IS NOT NULL."""

    samples = (
        ('x = "SELECT 1 WHERE NOT a"', 'x = "SELECT 1 WHERE a"'),
        ('x = "SELECT 1 WHERE a IS NULL"', 'x = "SELECT 1 WHERE a IS NOT NULL"'),
    )

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield an edit for each NOT and each IS NULL."""
        for at, word in enumerate(found[:-1]):
            after = found[at + 1]
            if word == "NOT" and after != "MATERIALIZED":
                yield Edit(word.start, after.start, "")
            elif word == "IS" and after == "NULL":
                yield Edit(after.start, after.start, "NOT ")


class SqlExtreme(SqlOperator):
    """The greatest becomes the least, the newest the oldest."""

    samples = (('x = "SELECT GREATEST(a, $1)"', 'x = "SELECT LEAST(a, $1)"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield an edit for each function of extremes and each descending order."""
        for at, word in enumerate(found):
            if word.text in _OTHER_EXTREME and at + 1 < len(found) and found[at + 1] == "(":
                yield Edit(word.start, word.end, _OTHER_EXTREME[word.text])
            elif word == "DESC":
                yield Edit(word.start, word.end, "ASC")


class SqlNumber(SqlOperator):
    """A number is one more or one less."""

    samples = (('x = "SELECT a + 1 WHERE $1"', 'x = "SELECT a + 2 WHERE $1"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield two edits for each whole number, but for the 1 of `SELECT 1 FROM`, which nobody reads."""
        for at, word in enumerate(found):
            is_read = not (at and found[at - 1] == "SELECT")
            if word.kind == "number" and word.text.isdigit() and is_read:
                yield Edit(word.start, word.end, str(int(word.text) + 1))
                yield Edit(word.start, word.end, str(int(word.text) - 1))


class SqlLock(SqlOperator):
    """Rows are not locked, or are waited for."""

    samples = (('x = "SELECT 1 FOR UPDATE SKIP LOCKED"', 'x = "SELECT 1"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield an edit for each lock and each SKIP LOCKED."""
        for at, word in enumerate(found):
            if word == "FOR" and at and at + 1 < len(found) and found[at + 1].text in {"UPDATE", "NO", "SHARE", "KEY"}:
                yield Edit(found[at - 1].end, found[_last_of_lock(found, at)].end, "")
            elif word == "SKIP" and at:
                yield Edit(found[at - 1].end, found[at + 1].end, "")


class SqlCase(SqlOperator):
    """The arms of CASE WHEN … THEN … ELSE are exchanged, or one of several is dropped."""

    samples = (('x = "SELECT CASE WHEN $1 THEN b END"', 'x = "SELECT CASE WHEN NOT ($1) THEN b END"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield the negation of each condition, and the loss of each arm that is not the only one."""
        for at, word in enumerate(found):
            if word != "WHEN":
                continue
            then = _next(found, at, {"THEN"})
            if then is None:
                continue
            if found[at - 1] == "CASE" or _first_arm(found, at):
                yield Edit(found[at + 1].start, found[then - 1].end, _negated(found, at + 1, then - 1))
            end = _next(found, then, {"WHEN", "ELSE", "END"})
            if end is not None and (found[end] == "WHEN" or found[at - 1] != "CASE"):
                yield Edit(word.start, found[end].start, "")


class SqlCoalesce(SqlOperator):
    """COALESCE loses its first value, or its last."""

    samples = (('x = "SELECT COALESCE(a, $1)"', 'x = "SELECT COALESCE($1)"'),)

    def sql_edits(self, found: Sequence[Word]) -> Iterator[Edit]:
        """Yield two edits for each COALESCE."""
        for at, word in enumerate(found[:-2]):
            if word != "COALESCE" or found[at + 1] != "(":
                continue
            level = found[at + 1].level
            close = next((n for n in range(at + 2, len(found)) if found[n] == ")" and found[n].level == level), None)
            commas = [n for n in range(at + 2, close or at) if found[n] == "," and found[n].level == level + 1]
            if close and commas:
                yield Edit(found[at + 2].start, found[commas[0] + 1].start, "")
                yield Edit(found[commas[-1]].start, found[close].start, "")


OPERATORS = (
    *(SqlDropCondition, SqlComparison, SqlNot, SqlExtreme),
    *(SqlNumber, SqlLock, SqlCase, SqlCoalesce),
)


def is_docstring(node: Any) -> bool:
    """Return whether the string is a statement of its own."""
    above = node.parent
    return above is not None and above.type in {"simple_stmt", "file_input"}


def _inside(word: Word) -> int:
    """Return the level of a condition that begins after this word."""
    return word.level + (word == "(")


def _last_of_condition(found: Sequence[Word], opening: int) -> int:
    """Return where the condition after AND, OR, WHERE, … ends; `opening` itself if there is none."""
    level = _inside(found[opening])
    for at in range(opening + 1, len(found)):
        word = found[at]
        if word.level < level:
            return at - 1
        if word.level > level or (word.text in {"AND", "FROM"} and _is_between(found, at)):
            continue
        if word.text in _CLAUSES and not (word == "FROM" and found[at - 1] == "DISTINCT"):
            return at - 1
    return len(found) - 1


def _is_between(found: Sequence[Word], at: int) -> bool:
    """Return whether this AND belongs to a BETWEEN."""
    for word in reversed(found[:at]):
        if word.level < found[at].level:
            return False
        if word.level == found[at].level and word.text in _CLAUSES:
            return False
        if word.level == found[at].level and word == "BETWEEN":
            return True
    return False


def _assigns(found: Sequence[Word], at: int) -> bool:
    """Return whether this = gives a column its value, behind SET."""
    level = found[at].level
    for before in range(at - 1, -1, -1):
        word = found[before]
        if word.level < level or (word.level == level and word == "="):
            return False
        if word.level == level and word.text in _CLAUSES:
            return word == "SET" or (word == "," and _assigns_before(found, before))
    return False


def _assigns_before(found: Sequence[Word], comma: int) -> bool:
    """Return whether the list that this comma belongs to began with SET."""
    level = found[comma].level
    for before in range(comma - 1, -1, -1):
        word = found[before]
        if word.level < level:
            return False
        if word.level == level and word.text in _CLAUSES and word != ",":
            return word == "SET"
    return False


def _last_of_lock(found: Sequence[Word], at: int) -> int:
    """Return the last word of FOR UPDATE and what belongs to it."""
    last, taken = at, {"FOR", "NO", "KEY", "UPDATE", "SHARE", "SKIP", "LOCKED", "NOWAIT", "OF", ","}
    while last + 1 < len(found) and (
        found[last + 1].text in taken or (found[last].text in {"OF", ","} and found[last + 1].kind == "name")
    ):
        last += 1
    return last


def _next(found: Sequence[Word], at: int, texts: set[str]) -> int | None:
    """Return the next of these words on the level of a CASE's arms."""
    level = found[at].level
    for after in range(at + 1, len(found)):
        if found[after].level == level and found[after].text in texts:
            return after
        if found[after].level < level:
            return after if found[after].text in texts else None
    return None


def _first_arm(found: Sequence[Word], at: int) -> bool:
    """Return whether the WHEN's CASE names no value, so that each arm has a condition of its own."""
    level = found[at].level
    for before in range(at - 1, -1, -1):
        if found[before] == "CASE" and found[before].level == level - 1:
            return found[before + 1] == "WHEN"
    return False


def _negated(found: Sequence[Word], first: int, last: int) -> str:
    """Return the negation of these words; they are put together with single spaces where the source had any space."""
    parts = [found[first].text]
    for before, word in zip(found[first:last], found[first + 1 : last + 1], strict=True):
        parts += [" " if word.start > before.end else "", word.text]
    return f"NOT ({''.join(parts)})"
