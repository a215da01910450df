"""The tests of a mutant: those that reach the lines of its fault.

A line of a function is reached as the recording says. A constant is reached where it is used: its users are looked for
in the module and in the modules that import it. So is a function that writes a part of a statement while modules are
imported, before any test.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property

from tests.mutants.mutants import Place
from tests.mutants.recording import Recording

_WITH_BODY = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
START_SECONDS = 0.1  # of each test, beside what it takes itself
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Source:
    """The syntax tree of a module, asked for lines."""

    def __init__(self, text: str) -> None:
        self._tree = ast.parse(text)

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """All statements; those inside come after those around them."""
        return [node for node in ast.walk(self._tree) if isinstance(node, ast.stmt)]

    @cached_property
    def _in_functions(self) -> set[int]:
        return {line for each in self.statements if isinstance(each, _FUNCTIONS) for line in _body(each)}

    def runs_on_import(self, line: int) -> bool:
        """Return whether the line is none of a function's body."""
        return line not in self._in_functions

    def around(self, line: int) -> set[int]:
        """Return the lines of the innermost statement; of one with a body, those of its head."""
        found = [each for each in self.statements if line in _lines(each)]
        innermost = min(found, key=lambda each: len(_lines(each)), default=None)
        return _head(innermost) if innermost else set()

    def function_lines(self) -> set[int]:
        """Return the lines of all functions' bodies."""
        return set(self._in_functions)

    def body_of(self, line: int) -> set[int]:
        """Return the lines of the body of the innermost function, class or assignment that has the line in its head."""
        found = [each for each in self.statements if line in _lines(each) and isinstance(each, _FUNCTIONS)]
        innermost = min(found, key=lambda each: len(_lines(each)), default=None)
        return _body(innermost) if innermost else set()

    def users_of(self, name: str) -> tuple[set[int], set[str]]:
        """Return the lines in functions that use a constant, directly or by other constants, and those constants."""
        names, before = {name}, 0
        top = [each for each in self._tree.body if isinstance(each, ast.Assign | ast.AnnAssign)]
        while len(names) > before:
            before = len(names)
            for each in top:
                if each.value is not None and names & _names(each.value):
                    names |= _targets(each)
        lines: set[int] = set()
        for each in self.statements:
            if names & _own_names(each) and not self.runs_on_import(each.lineno):
                lines |= _head(each)
        return lines, names


def chosen(
    place: Place,
    texts: Callable[[str], str],
    recording: Recording,
    *,
    seconds: float,
    most: int,
) -> list[str]:
    """Return the tests of a mutant, the best first: at most `most`, that took up to `seconds` together.

    Tests of the module's own file (test_leases for leases) come first, then those of files that name the module. Among
    them, and among the others, those come first that reach most per second of what few tests reach nearby: they know
    the cases that the many do not.
    """
    reached = reaching(place, texts, recording)
    worth = _worth(place, Source(texts(place.module)), recording)
    near = {file for file in {test.partition("::")[0] for test in reached} if recording.names(file, place.module)}

    own = f"/test_{place.module.rpartition('/')[2].removesuffix('.py')}"

    def rank(test: str) -> tuple[bool, bool, float, str]:
        file = test.partition("::")[0]
        return own not in file, file not in near, -worth[test] / (START_SECONDS + recording.seconds[test]), test

    order = sorted(reached, key=rank)
    taken, total = [], 0.0
    for test in order:
        if recording.seconds[test] + total <= seconds and len(taken) < most:
            taken.append(test)
            total += recording.seconds[test]
    return [*recording.changed_tests(), *(taken or order[:1]), *recording.unknown(place.module)]


def _worth(place: Place, source: Source, recording: Recording) -> defaultdict[str, float]:
    """Return for each test the lines nearby that it reaches: those of the function, each shared by all who reach it."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in source.body_of(place.line) or source.function_lines():
        tests = recording.tests(place.module, [line])
        for test in tests:
            found[test] += 1 / len(tests)
    return found


def reaching(place: Place, texts: Callable[[str], str], recording: Recording) -> set[str]:
    """Return all tests that reach the mutant."""
    source = Source(texts(place.module))
    lines = {line for at in range(place.line, place.last_line + 1) for line in source.around(at)}
    if not source.runs_on_import(place.line):
        return recording.tests(place.module, lines) or _of_users(place, source, texts, recording)
    if body := source.body_of(place.line):
        return recording.tests(place.module, body)
    return _of_users(place, source, texts, recording) or recording.tests(place.module, source.function_lines())


def _of_users(place: Place, source: Source, texts: Callable[[str], str], recording: Recording) -> set[str]:
    name = place.scope.rpartition(".")[2]
    if not name:
        return set()
    lines, names = source.users_of(name)
    found = recording.tests(place.module, lines)
    dotted = place.module.removesuffix(".py").replace("/", ".")
    for other in recording.modules():
        if other != place.module and dotted.rpartition(".")[2] in (text := texts(other)):
            for imported in names & _imported(text, dotted):
                found |= recording.tests(other, Source(text).users_of(imported)[0])
    return found


def _imported(text: str, dotted: str) -> set[str]:
    """Return the names that a module takes from another, by import or as attributes of it."""
    folder, _, stem = dotted.rpartition(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == dotted:
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == folder and stem in {each.name for each in node.names}:
            found |= {each.attr for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Attribute)}
    return found


def _lines(statement: ast.stmt) -> range:
    first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
    return range(first, (statement.end_lineno or first) + 1)


def _head(statement: ast.stmt) -> set[int]:
    lines = _lines(statement)
    body = getattr(statement, "body", None)
    if isinstance(statement, _WITH_BODY) and body:
        return set(range(lines.start, max(body[0].lineno, lines.start + 1)))
    return set(lines)


def _body(function: ast.stmt) -> set[int]:
    return {line for each in getattr(function, "body", ()) for line in _lines(each)}


def _names(node: ast.AST) -> set[str]:
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Name | ast.Attribute)
    }


def _own_names(statement: ast.stmt) -> set[str]:
    """Return the names in a statement without those of the statements inside it."""
    inside: Iterable[ast.AST] = (
        child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt | ast.ExceptHandler)
    )
    return {name for child in inside for name in _names(child)}


def _targets(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
