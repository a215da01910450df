"""Statements that touch clients' rows without naming the client, found by parsing what runs.

A table of a client's is named by an equation of its `client_id`: with a value, or with the `client_id` of a table that
is named so. The tables that hold what is looked up before the client is known (keys, accounts, assistants) count as
named.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pglast
import pytest
from django.apps import apps
from django.db.backends.utils import CursorWrapper
from django.db.models import AutoField
from pglast import ast
from pglast.enums import A_Expr_Kind
from pglast.visitors import Visitor

from conversations.models.of_client import OfClient
from conversations.services.core import pipelines, sql

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "over_all_clients.toml"
OURS = ("conversations/", "memory/", "convo_project/")
# They run what others ask for.
BELOW = (
    *("conversations/services/core/sql.py", "conversations/models/of_client.py"),
    *("conversations/services/core/cluster.py", "conversations/services/core/rotation.py"),
    *("conversations/http/doubled_path.py", "conversations/http/security_policy.py"),
    *("conversations/http/sign_in.py", "conversations/http/signed_in.py", "conversations/http/languages.py"),
)
MEMORY = {"memories", "memory_vectors"}
IN_CLUSTER = bool(os.environ.get("CITUS_DATABASE_URL"))


@cache
def tables() -> frozenset[str]:
    """The tables whose rows are a client's."""
    return frozenset({m._meta.db_table for m in apps.get_models() if issubclass(m, OfClient)} | MEMORY)


@cache
def unnamed(statement: str) -> frozenset[str]:
    """The clients' tables in the statement that it reads or writes without naming the client."""
    if not any(table in statement for table in tables()):
        return frozenset()
    text = re.sub(r"%(\(\w+\))?s", "NULL", statement).replace("%%", "%")
    try:
        parsed = pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        raise AssertionError(f"cannot be parsed: {error}: {statement}") from error
    found = _Levels()
    found(parsed)
    return frozenset(found.unnamed)


class _Levels(Visitor):  # type: ignore[misc]
    """Each query within a statement, on its own."""

    def __init__(self) -> None:
        self.unnamed: set[str] = set()

    def visit_SelectStmt(self, _ancestors: Any, node: Any) -> None:
        self._look(node.fromClause or (), [node.whereClause])

    def visit_UpdateStmt(self, _ancestors: Any, node: Any) -> None:
        self._look((node.relation, *(node.fromClause or ())), [node.whereClause])

    def visit_DeleteStmt(self, _ancestors: Any, node: Any) -> None:
        self._look((node.relation, *(node.usingClause or ())), [node.whereClause])

    def visit_InsertStmt(self, _ancestors: Any, node: Any) -> None:
        columns = {column.name for column in node.cols or ()}
        if node.relation.relname in tables() and "client_id" not in columns:
            self.unnamed.add(node.relation.relname)

    def _look(self, sources: Any, conditions: list[Any]) -> None:
        aliases: dict[str, str] = {}
        for source in sources:
            _gather(source, aliases, conditions)
        named: set[str] = set()
        links: list[tuple[str, str]] = []
        for condition in conditions:
            for equation in _equations(condition):
                _note(equation, aliases, named, links)
        while grown := {b for pair in links for a, b in (pair, pair[::-1]) if a in named} - named:
            named |= grown
        self.unnamed |= {table for alias, table in aliases.items() if table in tables() and alias not in named}


def _gather(source: Any, aliases: dict[str, str], conditions: list[Any]) -> None:
    if isinstance(source, ast.RangeVar):
        aliases[source.alias.aliasname if source.alias else source.relname] = source.relname
    elif isinstance(source, ast.JoinExpr):
        _gather(source.larg, aliases, conditions)
        _gather(source.rarg, aliases, conditions)
        conditions.append(source.quals)


class _Equations(Visitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.found: list[Any] = []

    def visit_A_Expr(self, _ancestors: Any, node: Any) -> None:
        if node.name[-1].sval in ("=", "IS NOT DISTINCT FROM"):
            self.found.append((node.lexpr, node.rexpr))

    def visit_SubLink(self, _ancestors: Any, node: Any) -> Any:
        if node.testexpr is not None:
            self.found.append((node.testexpr, node.subselect))
        return pglast.visitors.Skip


def _equations(condition: Any) -> list[Any]:
    if condition is None:
        return []
    found = _Equations()
    found(condition)
    return found.found


def _note(equation: Any, aliases: dict[str, str], named: set[str], links: list[tuple[str, str]]) -> None:
    ends = [_alias(side, aliases) for side in equation]
    if all(ends):
        links.append((ends[0], ends[1]))
    else:
        named.update(end for end in ends if end)


def _alias(side: Any, aliases: dict[str, str]) -> str | None:
    """The alias whose client the side of an equation is; None for a value."""
    while isinstance(side, ast.TypeCast):
        side = side.arg
    if not isinstance(side, ast.ColumnRef):
        return None
    path = [part.sval for part in side.fields if isinstance(part, ast.String)]
    alias = path[-2] if len(path) > 1 else None
    if alias is None and path[-1:] == ["client_id"]:
        own = [each for each, table in aliases.items() if table in tables()]
        return own[0] if len(own) == 1 else None
    if alias not in aliases:
        return None
    column = "id" if aliases[alias] == "clients" else "client_id"
    known = tables() | {"clients"}
    return alias if path[-1] == column and aliases[alias] in known else None


# --- what Citus refuses -----------------------------------------------------------------------------------------------
class _Words(Visitor):  # type: ignore[misc]
    """The columns in an expression, and what of it depends on the session's time zone or the time."""

    def __init__(self) -> None:
        self.has_column = self.is_stable = False

    def visit_ColumnRef(self, _ancestors: Any, _node: Any) -> None:
        self.has_column = True

    def visit_FuncCall(self, _ancestors: Any, node: Any) -> Any:
        if node.funcname[-1].sval == "timezone":  # x AT TIME ZONE …: what is within depends on nothing
            return pglast.visitors.Skip
        self.is_stable |= node.funcname[-1].sval in ("now", "statement_timestamp", "current_setting")
        return None

    def visit_A_Expr(self, _ancestors: Any, node: Any) -> None:
        if node.name[-1].sval in ("+", "-"):
            sides = [side for side in (node.lexpr, node.rexpr) if isinstance(side, ast.TypeCast)]
            self.is_stable |= any(side.typeName.names[-1].sval == "interval" for side in sides)


class _Refused(Visitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.why: list[str] = []

    def visit_UpdateStmt(self, _ancestors: Any, node: Any) -> None:
        if node.relation.relname not in tables():
            return
        for target in node.targetList:
            seen = _Words()
            seen(target.val)
            if seen.has_column and seen.is_stable:
                self.why.append(f"{target.name} is set to a STABLE expression with columns: see sql.later")

    def visit_SelectStmt(self, _ancestors: Any, node: Any) -> None:
        if not node.lockingClause:
            return
        levels = _Levels()
        levels.visit_SelectStmt(None, node)
        if levels.unnamed or _names_several(node.whereClause):
            self.why.append("rows of several clients are locked")


def _names_several(condition: Any) -> bool:
    if isinstance(condition, ast.BoolExpr):
        return any(map(_names_several, condition.args))
    return (
        isinstance(condition, ast.A_Expr)
        and condition.kind == A_Expr_Kind.AEXPR_OP_ANY
        and isinstance(condition.lexpr, ast.ColumnRef)
        and condition.lexpr.fields[-1].sval == "client_id"
    )


@cache
def refused_by_citus(statement: str) -> tuple[str, ...]:
    """Return why Citus would refuse the statement; () where no rule that is known here does."""
    if not any(table in statement for table in tables()):
        return ()
    if not re.search(r"(?i)\bfor (no key )?(update|share)\b|\bupdate\b", statement):
        return ()
    found = _Refused()
    found(pglast.parse_sql(re.sub(r"%(\(\w+\))?s", "NULL", statement).replace("%%", "%")))
    return tuple(found.why)


class _SubSelects(Visitor):  # type: ignore[misc]
    """The sub-selects in the target list of a query of one client, that name the client by the query's own row."""

    def __init__(self) -> None:
        self.found = False

    def visit_SelectStmt(self, _ancestors: Any, node: Any) -> None:
        levels = _Levels()
        levels.visit_SelectStmt(None, node)
        aliases: dict[str, str] = {}
        for source in node.fromClause or ():
            _gather(source, aliases, [])
        if levels.unnamed or not tables().intersection(aliases.values()):
            return
        for target in node.targetList or ():
            below = _Below()
            below(target)
            self.found |= any(_is_named_from_outside(each) for each in below.selects)


class _Below(Visitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.selects: list[Any] = []

    def visit_SubLink(self, _ancestors: Any, node: Any) -> Any:
        self.selects.append(node.subselect)
        return pglast.visitors.Skip


def _is_named_from_outside(node: Any) -> bool:
    """Return whether the query has rows of a client that a column of the query around it names, and no value."""
    aliases: dict[str, str] = {}
    conditions = [node.whereClause]
    for source in node.fromClause or ():
        _gather(source, aliases, conditions)
    named: set[str] = set()
    links: list[tuple[str, str]] = []
    for equation in (each for condition in conditions for each in _equations(condition)):
        ends = [_alias(side, aliases) for side in equation]
        if all(ends) or not any(isinstance(side, ast.ColumnRef) and not _alias(side, aliases) for side in equation):
            _note(equation, aliases, named, links)
    while grown := {b for pair in links for a, b in (pair, pair[::-1]) if a in named} - named:
        named |= grown
    return any(table in tables() and alias not in named for alias, table in aliases.items())


@cache
def asks_every_server_for_a_column(statement: str) -> bool:
    """Return whether a column of one client's rows is a sub-select whose client Citus cannot derive.

    It derives the client through joins, not into a sub-select in the target list, and asks every server for those rows.
    """
    if "(" not in statement or not any(table in statement for table in tables()):
        return False
    found = _SubSelects()
    found(pglast.parse_sql(re.sub(r"%(\(\w+\))?s", "NULL", statement).replace("%%", "%")))
    return found.found


@cache
def numbered() -> frozenset[str]:
    """The clients' tables whose rows get a number from the database."""
    models = [model for model in apps.get_models() if isinstance(model._meta.pk, AutoField)]
    return tables() & {model._meta.db_table for model in models}


class _Inserts(Visitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.inserts = self.has_with = self.numbers = False

    def visit_InsertStmt(self, _ancestors: Any, node: Any) -> None:
        self.inserts |= node.relation.relname in tables()
        aliases: dict[str, str] = {}
        for source in (node.selectStmt and node.selectStmt.fromClause) or ():
            _gather(source, aliases, [])
        self.numbers |= node.relation.relname in numbered() and bool(tables().intersection(aliases.values()))

    def visit_CommonTableExpr(self, _ancestors: Any, _node: Any) -> None:
        self.has_with = True


@cache
def needs_every_server(statement: str) -> bool:
    """Return whether the statement inserts what a CTE found, or gives numbers to rows that it found in a client's
    table, for which a cluster asks every server.

    One server does so where that costs less. In a cluster such a statement would wait for a server that is away.
    """
    if not re.search(r"(?is)\binsert\b.*\bselect\b|\bwith\b.*\binsert\b", statement) or not any(
        table in statement for table in tables()
    ):
        return False
    found = _Inserts()
    found(pglast.parse_sql(re.sub(r"%(\(\w+\))?s", "NULL", statement).replace("%%", "%")))
    return (found.inserts and found.has_with) or found.numbers


# --- while tests run --------------------------------------------------------------------------------------------------
@cache
def allowed() -> dict[str, str]:
    """The functions whose statements are over all clients, with the reason of each."""
    return dict(tomllib.loads(LIST.read_text())["over_all_clients"]) if LIST.exists() else {}


def site() -> str | None:
    """The function of ours that has the statement run; None if a test does."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
        if path.startswith("tests/") and not path.endswith("named_clients.py"):
            return None
        if path.startswith(OURS) and path not in BELOW:
            return f"{path.removesuffix('.py').replace('/', '.')}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None


def check(statement: Any, wrong: list[str]) -> None:
    """Note the statement if it is ours, touches clients' rows and names no client, or is refused by Citus."""
    text = statement if isinstance(statement, str) else ""
    if (tables_of := unnamed(text)) and (where := site()) and where not in allowed():
        wrong.append(f"{where} names no client of {', '.join(sorted(tables_of))}: {text}")
    if (refusals := refused_by_citus(text)) and (where := site()):
        wrong.append(f"{where} asks what Citus refuses, {'; '.join(refusals)}: {text}")
    if IN_CLUSTER and asks_every_server_for_a_column(text) and (where := site()) and where not in allowed():
        wrong.append(f"{where} has a column for which a cluster asks every server: {text}")
    if IN_CLUSTER and needs_every_server(text) and (where := site()):
        wrong.append(f"{where} inserts what it found, for which a cluster asks every server: {text}")


@contextmanager
def watched(wrong: list[str]) -> Iterator[None]:
    """Note in `wrong` what runs in this process meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute", "executemany"):
            patch.setattr(CursorWrapper, name, _before(getattr(CursorWrapper, name), 1, wrong))
        patch.setattr(sql, "_calling", _before(sql._calling, 1, wrong))
        name_of = pipelines.Pipeline._name_of
        patch.setattr(
            pipelines.Pipeline,
            "_name_of",
            lambda self, statement, types: (check(statement, wrong), name_of(self, statement, types))[1],
        )
        yield


def _before(run: Any, place: int, wrong: list[str]) -> Any:
    def checked(*given: Any, **more: Any) -> Any:
        check(given[place], wrong)
        return run(*given, **more)

    return checked
