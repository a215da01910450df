"""The mutants of a module: each is one small fault, known by where it is and by what it changes, not by its line."""

from __future__ import annotations

import ast
import difflib
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutants.operators import KINDS, Provider, is_logic

SEED = "convo"
ON_A_CLUSTER = ("_in_cluster", "open_in_parts")  # functions that tests/citus tries
_PROVIDER = Provider()


@dataclass(frozen=True, slots=True)
class Place:
    """A place where an operator can make its fault. `scope` is the function or the constant around it."""

    module: str
    scope: str
    kind: str
    operator: str
    occurrence: int
    line: int
    last_line: int
    rank: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A place and the module's source with the fault in it.

    was, becomes: the lines that differ, with single spaces
    """

    place: Place
    source: str
    was: str
    becomes: str
    diff: str

    @property
    def id(self) -> str:
        """Return the eight characters that name the mutant in commands and reports."""
        return _digest(self.place.module, self.place.scope, self.was, self.becomes)[:8]


def places(module: str, source: str) -> list[Place]:
    """Return all places of a module, in the order of the sample.

    The order depends on the text of each line and not on its number, so that a change of the module changes the sample
    little. The kinds of operators take turns.
    """
    scopes, lines = scopes_of(source), source.split("\n")
    by_kind: defaultdict[str, list[Place]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast(source)))
    seen: defaultdict[str, int] = defaultdict(int)
    for kind, operators in KINDS.items():
        for name, operator in operators.items():
            occurrence = 0
            for node in nodes:
                for (first, _), (last, _) in operator().mutation_positions(node):
                    scope = scopes.get(first, "")
                    key = "\0".join((SEED, module, scope, name, lines[first - 1].strip()))
                    seen[key] += 1
                    if is_logic(node) and not scope.endswith(ON_A_CLUSTER):
                        rank = _digest(key, str(seen[key]))
                        by_kind[kind].append(Place(module, scope, kind, name, occurrence, first, last, rank))
                    occurrence += 1
    for found in by_kind.values():
        found.sort(key=lambda place: place.rank)
    return [place for turn in zip_longest(*by_kind.values()) for place in turn if place is not None]


def made(source: str, found: Iterable[Place]) -> Iterator[Mutant]:
    """Yield the mutants of these places, without those that are no Python or that another operator made already."""
    taken = {source}
    for place in found:
        mutated = mutate_code(source, _PROVIDER[place.operator](), place.occurrence)
        if mutated is None or mutated in taken or not _compiles(mutated):
            continue
        taken.add(mutated)
        yield _compared(place, source, mutated)


def sample(module: str, source: str, number: int | None) -> list[Mutant]:
    """Return up to `number` mutants of the module; all of them for None."""
    mutants = made(source, places(module, source))
    return list(mutants) if number is None else [mutant for _, mutant in zip(range(number), mutants, strict=False)]


def scopes_of(source: str) -> dict[int, str]:
    """Return the scope of each line: the function, else the constant of the module or class."""
    found: dict[int, str] = {}

    def note(body: Sequence[ast.stmt], inside: str) -> None:
        for statement in body:
            name = _name(statement)
            scope = f"{inside}.{name}".strip(".") if name else inside
            first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
            found.update(dict.fromkeys(range(first, (statement.end_lineno or first) + 1), scope))
            if isinstance(statement, ast.ClassDef):
                note(statement.body, scope)

    note(ast.parse(source).body, "")
    return found


def read(root: Path, module: str) -> str:
    """Return the source of the module."""
    return (root / module).read_text(encoding="utf-8")


def _name(statement: ast.stmt) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name), *_]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def _compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _compared(place: Place, source: str, mutated: str) -> Mutant:
    before, after = source.splitlines(), mutated.splitlines()
    name = place.module
    lines = list(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", n=2, lineterm=""))
    changed = lines[2:]
    was = [line[1:] for line in changed if line.startswith("-")]
    becomes = [line[1:] for line in changed if line.startswith("+")]
    return Mutant(
        place, mutated, " ".join(" ".join(was).split()), " ".join(" ".join(becomes).split()), "\n".join(lines)
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
