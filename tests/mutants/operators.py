"""Faults in Python: those of cosmic-ray that make sense here, and our own for calls and for Django's queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators import (
    binary_operator_replacement,
    boolean_replacer,
    break_continue,
    comparison_operator_replacement,
    number_replacer,
    remove_decorator,
    unary_operator_replacement,
    zero_iteration_for_loop,
)
from cosmic_ray.operators.operator import Example, Operator

from tests.mutants import sql
from tests.mutants.edits import Edit, EditOperator

QUERIES = {"filter", "exclude", "Q", "get", "update", "When"}
LOGS = {"log", "logger", "logging"}
_LIMIT = re.compile(r"__(lte|lt|gte|gt)$")
_OTHER_LIMIT = {"lt": "lte", "lte": "lt", "gt": "gte", "gte": "gt"}


class In(EditOperator):
    """`in` becomes `not in`, and the other way round."""

    samples = (("x = a in b", "x = a not in b"), ("x = a not in b", "x = a in b"))

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for each membership that a comparison asks for."""
        if node.type != "comparison":
            return
        for child in node.children[1::2]:
            text = child.get_code(include_prefix=False)
            if text in {"in", "not in"}:
                at = child.start_pos
                start = _offset(node, at)
                yield Edit(start, start + len(text), "not in" if text == "in" else "in")


class Extreme(EditOperator):
    """`max` becomes `min`, and the other way round; `any` becomes `all`."""

    samples = (("x = max(a, b)", "x = min(a, b)"),)
    _others = {"max": "min", "min": "max", "any": "all", "all": "any"}

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for each call of the built-in functions."""
        if node.type == "atom_expr" and node.children[0].type == "name" and _is_call(node.children[1]):
            name = node.children[0].value
            if name in self._others:
                yield Edit(0, len(name), self._others[name])


class DropCall(EditOperator):
    """A call whose result nobody uses is not made."""

    samples = (("f(a)", "pass"),)

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for a statement that is a call."""
        is_statement = node.parent is not None and node.parent.type in {"simple_stmt", "file_input"}
        if node.type == "atom_expr" and is_statement and _is_call(node.children[-1]):
            yield Edit(0, len(node.get_code(include_prefix=False)), "pass")


class DropKeyword(EditOperator):
    """A query loses one of its conditions, or an update one of its fields."""

    samples = (("q.filter(a=1, b=2)", "q.filter(b=2)"), ("x = Q(a=1)", "x = Q()"))

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for each keyword of a query."""
        if not (_is_call(node) and _called(node) in QUERIES):
            return
        inner = node.children[1:-1]
        if not inner:
            return
        parts = inner[0].children if inner[0].type == "arglist" else inner
        arguments = [part for part in parts if not (part.type == "operator" and part.value == ",")]
        for n, argument in enumerate(arguments):
            if not _is_keyword(argument):
                continue
            if n + 1 < len(arguments):
                yield Edit(_offset(node, argument.start_pos), _offset(node, arguments[n + 1].start_pos), "")
            else:
                start = arguments[n - 1].end_pos if n else argument.start_pos
                yield Edit(_offset(node, start), _offset(node, argument.end_pos), "")


class KeywordLimit(EditOperator):
    """A query's `__lt` becomes `__lte`, and so on."""

    samples = (("q.filter(a__lt=1)", "q.filter(a__lte=1)"),)

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for each keyword that compares with a limit."""
        if _is_keyword(node) and (limit := _LIMIT.search(node.children[0].value)):
            yield Edit(limit.start(1), limit.end(1), _OTHER_LIMIT[limit[1]])


class DropLock(EditOperator):
    """A query does not lock its rows."""

    samples = (("x = q.select_for_update().first()", "x = q.first()"),)

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield an edit for each `select_for_update`."""
        if node.type != "atom_expr":
            return
        for name, call in zip(node.children, node.children[1:], strict=False):
            if name.get_code().strip() == ".select_for_update" and _is_call(call):
                yield Edit(_offset(node, name.start_pos), _offset(node, call.end_pos), "")


class DropAtomic(remove_decorator.RemoveDecorator):
    """A function that was one transaction is none."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield the decorators that make transactions; without others a function has another meaning or none."""
        return (at for at in super().mutation_positions(node) if "atomic" in node.get_code())

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return an example: the decorator is gone."""
        return (Example("@transaction.atomic\ndef f(): pass", "def f(): pass"),)


def _picked(module: Any, *names: str) -> dict[str, type[Operator]]:
    return {name: getattr(module, name) for name in names}


_COSMIC_RAY = {
    **_picked(
        comparison_operator_replacement,
        *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
        *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    ),
    **_picked(
        binary_operator_replacement,
        *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "BitOr_BitAnd")),
        *(f"ReplaceBinaryOperator_{pair}" for pair in ("BitAnd_BitOr", "FloorDiv_Mul")),
    ),
    **_picked(unary_operator_replacement, "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_Invert"),
    **_picked(boolean_replacer, "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    **_picked(boolean_replacer, "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    **_picked(break_continue, "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    **_picked(number_replacer, "NumberReplacer"),
    **_picked(zero_iteration_for_loop, "ZeroIterationForLoop"),
}
# Kinds take turns in a sample, so that each is in it.
KINDS: dict[str, dict[str, type[Operator]]] = {
    "sql": {operator.__name__: operator for operator in sql.OPERATORS},
    "python": {**_COSMIC_RAY, **{operator.__name__: operator for operator in (In, Extreme, DropCall, DropAtomic)}},
    "query": {operator.__name__: operator for operator in (DropKeyword, KeywordLimit, DropLock)},
}


class Provider:
    """Our operators as cosmic-ray asks for them, by the name `convo`."""

    _all = {name: operator for kind in KINDS.values() for name, operator in kind.items()}

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._all)

    def __getitem__(self, name: str) -> type[Operator]:
        """Return the operator. Raises KeyError."""
        return self._all[name]


def is_logic(node: Any) -> bool:
    """Return whether a fault at this node is worth trying.

    Annotations, imports, log lines, error sentences, `__slots__`, arguments of decorators and `strict=` are not.
    """
    above = node.parent
    if node.type in {"decorator", "annassign"} or (node.type == "operator" and above.type in {"parameters", "arglist"}):
        return node.type == "decorator"
    while above is not None:
        if above.type in {
            "annassign",
            "tfpdef",
            "import_from",
            "import_name",
            "decorator",
            "assert_stmt",
            "raise_stmt",
        }:
            return above.type == "annassign" and _is_value(node, above)
        if above.type == "param" and above.annotation is not None and _is_below(node, above.annotation):
            return False
        if above.type == "funcdef" and above.annotation is not None and _is_below(node, above.annotation):
            return False
        if above.type == "argument" and above.children[0].get_code().strip() in {
            "strict",
            "slots",
            "frozen",
            "stacklevel",
        }:
            return False
        if above.type == "atom_expr" and above.children[0].get_code().strip() in {*LOGS, "TypeVar", "DomainError"}:
            return False
        if above.type == "expr_stmt" and above.children[0].get_code().strip() in {"__slots__", "__all__"}:
            return False
        above = above.parent
    return not (node.type == "atom_expr" and node.children[0].get_code().strip() in LOGS)


def _is_value(node: Any, annotated: Any) -> bool:
    """Return whether the node is the value behind an annotation, and itself not something that is skipped."""
    return len(annotated.children) > 3 and _is_below(node, annotated.children[3])


def _is_below(node: Any, top: Any) -> bool:
    while node is not None:
        if node is top:
            return True
        node = node.parent
    return False


def _is_call(node: Any) -> bool:
    return node.type == "trailer" and node.children[0].get_code(include_prefix=False) == "("


def _called(call: Any) -> str:
    """Return the last name of what is called."""
    siblings = call.parent.children
    before = siblings[siblings.index(call) - 1]
    return str(before.get_last_leaf().value)


def _is_keyword(node: Any) -> bool:
    return node.type == "argument" and node.children[0].type == "name" and node.children[1].get_code().strip() == "="


def _offset(node: Any, at: tuple[int, int]) -> int:
    """Return the offset in the node's text of (line, column)."""
    lines = node.get_code(include_prefix=False).split("\n")
    row, column = at[0] - node.start_pos[0], at[1]
    return column - node.start_pos[1] if row == 0 else sum(len(line) + 1 for line in lines[:row]) + column
