"""Rotation: who has something due, found by a loose scan of an index, and background work in turns between them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.db import OperationalError

from conversations.services.core.cluster import can_ask_others, clients_with, is_cluster, of_each
from conversations.services.core.silence import silence
from conversations.services.core.sql import column, rows

Name = TypeVar("Name")
Claimed = TypeVar("Claimed")


def distinct_sql(table: str, column: str, where: str) -> str:
    """Return the SQL "WITH RECURSIVE waiting (id) AS (…)" of the distinct values of the column, without NULL.

    It steps from value to value in an index that begins with the column and has the condition: its cost grows with the
    number of values, and not with the number of rows. PostgreSQL has no such scan of its own.
    """
    first = f"SELECT {column} FROM {table} WHERE {where} AND {column} IS NOT NULL ORDER BY {column} LIMIT 1"
    following = f"SELECT t.{column} FROM {table} t WHERE {where} AND t.{column} > w.id ORDER BY t.{column} LIMIT 1"
    return f"""
    WITH RECURSIVE waiting (id) AS (
        ({first})
        UNION ALL
        SELECT ({following}) FROM waiting w WHERE w.id IS NOT NULL)"""


def clients_in(table: str, where: str = "true") -> Sequence[UUID]:
    """Return the clients that have such rows; all clients while a server of a cluster is away."""
    if is_cluster():
        return clients_with(f"SELECT DISTINCT client_id FROM {table} WHERE {where} AND client_id IS NOT NULL")
    return column(f"{distinct_sql(table, 'client_id', where)} SELECT id FROM waiting WHERE id IS NOT NULL")


class Waiting:
    """A list of the clients, or accounts, that have something due, as one statement.

        Waiting("conversations", "client_id", "reply_owed", "SELECT c.id FROM {each} (SELECT … WHERE id = {id}) c …")

    table, column, where: the index of those who may have something (`distinct_sql`)
    statement: looks at each of them. `{each}` stands for them in FROM, before a sub-select; `{id}` is the value of the
    column, and `{client}` the client's id, which is `of` where all servers are one

    In a cluster they are listed, and each is asked by a statement of its own. Where the list fails because a server is
    away, all of `everybody` are asked, and those on that server are left out.
    """

    def __init__(self, table: str, column: str, where: str, statement: str, *, of: str = "c.id") -> None:
        self._all = distinct_sql(table, column, where) + statement.format(
            each="waiting w CROSS JOIN LATERAL", id="w.id", client=of
        )
        number = 1 + max((int(found) for found in re.findall(r"\$(\d+)", statement)), default=0)
        is_client = column == "client_id"
        client = f"${number}::uuid" if is_client else f"${number + 1}::uuid"
        self._one = statement.format(each="", id=f"${number}::uuid", client=client)
        names = column if is_client else f"{column}, client_id"
        self._waiting = f"SELECT DISTINCT {names} FROM {table} WHERE {where} AND {column} IS NOT NULL"
        self._everybody = "SELECT id FROM clients" if is_client else "SELECT id, client_id FROM channel_accounts"

    def rows(self, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of the statement."""
        if not is_cluster():
            return rows(self._all, *values)
        each = of_each(self._names(), lambda *name: rows(self._one, *values, *name))
        return [found for one in each for found in one]

    def _names(self) -> Sequence[tuple[Any, ...]]:
        if not silence.is_anywhere():
            try:
                return rows(self._waiting)
            except OperationalError:
                if not can_ask_others():
                    raise
        return rows(self._everybody)


def by_client(clients: Mapping[Name, UUID]) -> dict[UUID, list[Name]]:
    """Return what belongs to each client; `clients` has the client of each."""
    found: dict[UUID, list[Name]] = {}
    for name, client_id in clients.items():
        found.setdefault(client_id, []).append(name)
    return found


def in_rotation(
    waiting: Callable[[], Sequence[tuple[Name, int]]],
    claim: Callable[[Name], Claimed | None],
    until: float = float("inf"),
) -> Iterator[Claimed]:
    """Yield what is claimed of those that wait, round by round, until a round finds nothing.

    waiting: returns who has something due, and how many each may claim in a round: the client's weight
    claim: claims the oldest that is due of the one that it is given; returns None if nothing is left
    until: the value of `time.monotonic()` after which nothing more is claimed
    """
    has_claimed = True
    while has_claimed:
        has_claimed = False
        for name, weight in waiting():
            for _ in range(weight):
                claimed = next(of_each([(name,)], claim), None) if time.monotonic() < until else None
                if claimed is None:
                    break
                has_claimed = True
                yield claimed
