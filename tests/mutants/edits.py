"""The common part of our operators: each names the edits it would make to the text of a node.

An operator of cosmic-ray is asked for the positions in each node of the syntax tree and changes one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator


@dataclass(frozen=True, slots=True)
class Edit:
    """Characters `start` to `end` of a node's text, without what precedes it, become `text`."""

    start: int
    end: int
    text: str


class EditOperator(Operator):
    """An operator that is a list of edits for each node."""

    samples: tuple[tuple[str, str], ...] = ()

    def edits(self, node: Any) -> Iterator[Edit]:
        """Yield the edits of this node alone, not of those below it."""
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield (line, column) of the first and the last character of each edit."""
        code = node.get_code(include_prefix=False)
        for edit in self.edits(node):
            yield position(node, code, edit.start), position(node, code, edit.end)

    def mutate(self, node: Any, index: int) -> Any:
        """Return the node with its edit number `index` made."""
        prefix = node.get_first_leaf().prefix
        code = node.get_code(include_prefix=False)
        edit = list(self.edits(node))[index]
        return parso.parse(prefix + code[: edit.start] + edit.text + code[edit.end :])

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return cosmic-ray's examples: code before and after the first edit."""
        return tuple(Example(before, after) for before, after in cls.samples)


def position(node: Any, code: str, offset: int) -> tuple[int, int]:
    """Return line and column of the character at this offset of the node's text."""
    before = code[:offset]
    lines = before.count("\n")
    line, column = node.start_pos
    return line + lines, len(before) - before.rfind("\n") - 1 if lines else column + offset
