"""Row-level security: transactions of signed-in users run in a database role that sees their own rows alone.

The copilot's queries ask for the user's rows anyway; the policies are there for the query that forgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql

from conversations.services.core.cluster import is_cluster

NOBODY = "none"


@contextmanager
def confined_to(*user_ids: int) -> Iterator[None]:
    """A transaction that sees and changes the rows of these users alone, however it asks."""
    nested = connection.in_atomic_block
    with transaction.atomic():
        _take_on(settings.COPILOT_ROLE, ",".join(map(str, user_ids)))
        yield
        if nested:  # the role would last as long as the transaction around this one
            _take_on(NOBODY, "")


@contextmanager
def unconfined() -> Iterator[None]:
    """Within `confined_to`: run the block in the application's own role. Its queries must name client and contact."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('role'), current_setting('convo.logins', true)")
        [(role, logins)] = cursor.fetchall()
    with transaction.atomic():  # an error that is caught further out gives the role back with its savepoint
        _take_on(NOBODY, "")
        yield
        _take_on(role, logins or "")


def _take_on(role: str, logins: str) -> None:
    with connection.cursor() as cursor:
        if is_cluster():
            _take_on_in_cluster(cursor, role, logins)
            return
        cursor.execute("SELECT set_config('role', %s, true), set_config('convo.logins', %s, true)", [role, logins])


def _take_on_in_cluster(cursor: Any, role: str, logins: str) -> None:
    """Take on the role, and have the workers know the users: `set_config` does not reach them.

    The role itself is not handed on: it connects to the workers by its own name.
    """
    cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    cursor.execute(sql.SQL("SET LOCAL convo.logins = {}").format(sql.Literal(logins)))
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'none'")
    cursor.execute("SET LOCAL citus.max_adaptive_executor_pool_size = 1")  # what one locks, another would wait for
