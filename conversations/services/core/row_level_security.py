"""Row-level security: transactions of signed-in users run in a database role that sees their own rows alone.

The copilot's queries ask for the user's rows anyway; the policies are there for the query that forgets.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql
from psycopg.pq import TransactionStatus

from conversations.services.core.cluster import is_cluster

NOBODY = "none"
# All that a user asks for is found by keys: a plan for these values would be no better than one for any, and each new
# connection would plan each statement five times before it keeps a plan.
_TAKE_ON = """
    SELECT set_config('role', %s, true), set_config('convo.logins', %s, true),
        set_config('plan_cache_mode', 'force_generic_plan', true)"""


class _Current(threading.local):
    """The role of this thread's transaction, and the users to whom it is confined."""

    role = NOBODY, ""


_current = _Current()


@contextmanager
def confined_to(*user_ids: int) -> Iterator[None]:
    """A transaction that sees and changes the rows of these users alone, however it asks."""
    is_nested = connection.in_atomic_block  # then the role would last as long as the transaction around this one
    logins = ",".join(map(str, user_ids))
    with transaction.atomic(), _acting_as(settings.COPILOT_ROLE, logins, gives_back=is_nested):
        yield


@contextmanager
def unconfined() -> Iterator[None]:
    """Within `confined_to`: run the block in the application's own role. Its queries must name client and contact.

    Where a statement of the block fails, the transaction has failed: catch the error outside, or around a savepoint.
    """
    with _acting_as(NOBODY, "", gives_back=True):
        yield


@contextmanager
def _acting_as(role: str, logins: str, *, gives_back: bool) -> Iterator[None]:
    before, _current.role = _current.role, (role, logins)
    try:
        _take_on(role, logins)
        yield
    finally:
        _current.role = before
        if gives_back and not _has_failed():  # a rollback gives the role back by itself
            _take_on(*before)


def _has_failed() -> bool:
    """Return whether no further statement of this transaction is possible."""
    status: int = connection.connection.info.transaction_status
    return connection.needs_rollback or status != TransactionStatus.INTRANS


def _take_on(role: str, logins: str) -> None:
    with connection.cursor() as cursor:
        if is_cluster():
            _take_on_in_cluster(cursor, role, logins)
            return
        cursor.execute(_TAKE_ON, [role, logins])


def _take_on_in_cluster(cursor: Any, role: str, logins: str) -> None:
    """Take on the role, and have the workers know the users: `set_config` does not reach them.

    The role itself is not handed on: it connects to the workers by its own name.
    """
    cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    cursor.execute(sql.SQL("SET LOCAL convo.logins = {}").format(sql.Literal(logins)))
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'none'")
    cursor.execute("SET LOCAL citus.max_adaptive_executor_pool_size = 1")  # what one locks, another would wait for
