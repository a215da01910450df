"""Finds sentences of Python code that people read and that are not marked for translation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MARKS = {
    *("gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy", "_"),
    "with_values",
}
REFUSALS = {
    *("DomainError", "NotFoundError", "ConflictError", "InvalidError", "UnavailableError"),
    *("NotSignedError", "ForbiddenError", "TooManyError"),
}
# Functions that say something to people, and which of their arguments that is.
SAYING = {
    **dict.fromkeys(REFUSALS | {"ValidationError", "InvalidSchemaError"}, 0),
    **dict.fromkeys(["success", "error", "warning", "info", "message_user", "add_error", "RegexValidator"], 1),
}
TOLD = {"success", "error", "warning", "info"}  # methods of django.contrib.messages, and of others that say nothing
# Arguments and attributes with words for people. The words of models are collected from them: see catalogues.
NAMED = {
    *("description", "short_description", "title", "label", "question", "empty_message", "search_help_text"),
    *("help_text", "verbose_name", "verbose_name_plural", "violation_error_message", "placeholder", "subtitle"),
}
OF_MODELS = {"help_text", "verbose_name", "verbose_name_plural"}
_WORD = re.compile(r"[^\W\d_]{2,}")
_PHRASE = re.compile(r"[^\W\d_]{2,}[,;:]? +[^\W\d_]{2,}")
_CODE = re.compile(r"^<|\b(SELECT|FROM|WHERE|UPDATE|INSERT|DELETE|EXISTS|COALESCE|AND|NOT NULL|CASE|ORDER BY)\b")


@dataclass
class _Scope:
    """What names stand for: `known` has the values that were assigned to each."""

    known: dict[str, list[ast.expr]] = field(default_factory=dict)

    def learn(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            for target in targets:
                if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                    self.known.setdefault(target.id, []).append(value)


def sentences(source: str, *, is_model: bool = False) -> Iterator[tuple[int, str, str]]:
    """Yield what is said to people without a mark: its line, who says it (a function or a name), and its words."""
    tree = ast.parse(source)
    scope = _Scope()
    scope.learn(tree)
    for node in ast.walk(tree):
        for saying, value in _said(node):
            if is_model and saying in OF_MODELS:
                continue
            yield from ((node.lineno, saying, words) for words in _plain(value, scope))  # type: ignore[attr-defined]


def _said(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
        of = getattr(getattr(node.func, "value", None), "id", "")
        at = SAYING.get(name)
        if at is not None and at < len(node.args) and (name not in TOLD or of == "messages"):
            yield name, node.args[at]
        yield from ((each.arg, each.value) for each in node.keywords if each.arg in NAMED)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            name = getattr(target, "id", None) or getattr(target, "attr", "")
            if name in NAMED:
                yield name, node.value


def _plain(value: ast.expr, scope: _Scope, seen: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the words in the expression that are in no mark. Names are followed to what was assigned to them."""
    text = _text(value)
    if text is not None:
        yield from [text] if _WORD.search(text.replace("{}", "")) else []
    elif not (isinstance(value, ast.Name) and value.id in seen):
        seen = (*seen, value.id) if isinstance(value, ast.Name) else seen
        for each in _parts(value, scope):
            yield from _plain(each, scope, seen)


def _text(value: ast.AST) -> str | None:
    if isinstance(value, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in value.values)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _parts(value: ast.expr, scope: _Scope) -> list[ast.expr]:
    """Return the expressions of which the value is made, or of which it is one."""
    match value:
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [left, right]
        case ast.BinOp(left=left, op=ast.Mod()):
            return [left]
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.BoolOp(values=values):
            return values
        case ast.Name(id=name):
            return scope.known.get(name, [])
        case ast.Subscript(value=ast.Name(id=name)):
            return [one for each in scope.known.get(name, []) if isinstance(each, ast.Dict) for one in each.values]
    return []


def phrases(source: str) -> Iterator[tuple[int, str]]:
    """Yield every phrase of two words and more that is in no mark, no docstring and no line of the log."""
    yield from _phrases(ast.parse(source))


def _phrases(node: ast.AST) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if isinstance(child, ast.Call):
            name = getattr(child.func, "id", None) or getattr(getattr(child.func, "value", None), "id", "")
            if name in MARKS or name == "log":
                continue
        text = _text(child)
        for each in [child] if text is None else getattr(child, "values", []):
            yield from [] if isinstance(each, ast.Constant) else _phrases(each)
        if text and _PHRASE.search(text.replace("{}", "")) and not _CODE.search(text.strip()):
            yield child.lineno, text  # type: ignore[attr-defined]
