"""Row-level security: transactions of signed-in users run in a database role that sees their own rows alone.

The copilot's queries ask for the user's rows anyway; the policies are there for the query that forgets.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql
from psycopg.pq import TransactionStatus

from conversations.services.core.cluster import is_cluster
from conversations.services.core.sql import rows

NOBODY = "none"
_CLIENTS = """
    (SELECT COALESCE(string_agg(DISTINCT m.client_id::text, ','), '')
     FROM memberships m JOIN clients c ON c.id = m.client_id AND c.is_active
     WHERE m.user_id = {users})"""
# PostgreSQL keeps a plan for one user; for a list of users it would make one each time.
_OF_ONE = _CLIENTS.format(users="$1::int")
_OF_SEVERAL = _CLIENTS.format(users="ANY (string_to_array($1, ',')::int[])")
# The role comes last: it sees no others' memberships. All that a user asks for is found by keys: a plan for these
# values would be no better than one for any, and each new connection would plan each statement five times before it
# keeps a plan.
_TAKE_ON = """
    SELECT set_config('convo.clients', {clients}, true), set_config('convo.logins', $2, true),
        set_config('plan_cache_mode', 'force_generic_plan', true), set_config('role', $3, true)"""
_LOOK_UP_AND_TAKE_ON = _TAKE_ON.format(clients=_OF_ONE), _TAKE_ON.format(clients=_OF_SEVERAL)
_TAKE_ON_AGAIN = _TAKE_ON.format(clients="$1")
_LET_WRITE = "SELECT set_config('convo.session', $1, true)"


class _Confinement(NamedTuple):
    """A role and whose rows it sees: those of the users, at the active clients that one of them is a member of.

    logins, clients: ids, with commas between them; clients: None where they are still to be looked up
    """

    role: str = NOBODY
    logins: str = ""
    clients: str | None = ""


class _Current(threading.local):
    """The confinement of this thread's transaction."""

    confinement = _Confinement()


_current = _Current()


@contextmanager
def confined_to(*user_ids: int) -> Iterator[None]:
    """A transaction that sees and changes the rows of these users alone, however it asks. Not within another such."""
    is_nested = connection.in_atomic_block  # then the role would last as long as the transaction around this one
    theirs = _Confinement(settings.COPILOT_ROLE, ",".join(map(str, user_ids)), None)
    with transaction.atomic(), _acting_as(theirs, gives_back=is_nested):
        yield


def let_write(conversation_id: UUID) -> None:
    """Let the confined transaction write rows below this conversation, which it has locked, and below no other."""
    if is_cluster():
        with connection.cursor() as cursor:
            _set_everywhere(cursor, session=str(conversation_id))
    else:
        rows(_LET_WRITE, str(conversation_id))


@contextmanager
def unconfined() -> Iterator[None]:
    """Within `confined_to`: run the block in the application's own role. Its queries must name client and contact.

    Where a statement of the block fails, the transaction has failed: catch the error outside, or around a savepoint.
    """
    with _acting_as(_Confinement(), gives_back=True):
        yield


def clients_seen() -> list[UUID]:
    """Return the ids of the clients whose rows the confined transaction sees."""
    return [UUID(each) for each in (_current.confinement.clients or "").split(",") if each]


@contextmanager
def _acting_as(confinement: _Confinement, *, gives_back: bool) -> Iterator[None]:
    before = _current.confinement
    try:
        _current.confinement = _take_on(confinement)
        yield
    finally:
        _current.confinement = before
        if gives_back and not _has_failed():  # a rollback gives the role back by itself
            _take_on(before)


def _has_failed() -> bool:
    """Return whether no further statement of this transaction is possible."""
    status: int = connection.connection.info.transaction_status
    return connection.needs_rollback or status != TransactionStatus.INTRANS


def _take_on(wanted: _Confinement) -> _Confinement:
    """Take on the role until the transaction ends, and return the confinement with its clients."""
    if is_cluster():
        with connection.cursor() as cursor:
            return _take_on_in_cluster(cursor, wanted)
    statement, known = _TAKE_ON_AGAIN, wanted.clients
    if known is None:
        of_one, of_several = _LOOK_UP_AND_TAKE_ON
        statement, known = of_several if "," in wanted.logins else of_one, wanted.logins
    [(clients, *_)] = rows(statement, known, wanted.logins, wanted.role)
    return wanted._replace(clients=clients)


def _take_on_in_cluster(cursor: Any, wanted: _Confinement) -> _Confinement:
    """Take on the role, and have the workers know users and clients.

    The role itself is not handed on: it connects to the workers by its own name.
    """
    if wanted.clients is None:
        [(clients,)] = rows(f"SELECT {_OF_SEVERAL}", wanted.logins)
        wanted = wanted._replace(clients=clients)
    cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(wanted.role)))
    _set_everywhere(cursor, logins=wanted.logins, clients=wanted.clients)
    cursor.execute("SET LOCAL citus.max_adaptive_executor_pool_size = 1")  # what one locks, another would wait for
    return wanted


def _set_everywhere(cursor: Any, **settings_of_convo: str | None) -> None:
    """Set these until the transaction ends, also on the workers, which `set_config` does not reach."""
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    for name, value in settings_of_convo.items():
        setting = sql.Identifier("convo", name)
        cursor.execute(sql.SQL("SET LOCAL {} = {}").format(setting, sql.Literal(value)))
    cursor.execute("SET LOCAL citus.propagate_set_commands = 'none'")
