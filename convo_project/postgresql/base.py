"""Django's PostgreSQL backend: connections are checked by their socket, limited in time, and errors logged by code."""

from __future__ import annotations

import select
from datetime import UTC
from types import TracebackType
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper, IntegrityError, InternalError, OperationalError
from django.utils.functional import cached_property
from psycopg.pq import TransactionStatus

from convo_project.postgresql import failures, limits, times
from convo_project.postgresql.schema import SchemaEditor

ANSWERING = (TransactionStatus.IDLE, TransactionStatus.INTRANS)


class DatabaseWrapper(base.DatabaseWrapper):
    """PostgreSQL with `CONN_HEALTH_CHECKS`, without Django's `SELECT 1` before every request, and with our limits."""

    SchemaEditorClass = SchemaEditor

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.call = limits.Call()
        self._lost_commits: list[str] = []
        self._refused_commits: list[str] = []

    def is_usable(self) -> bool:
        """Return whether the connection is alive as far as our end of the socket knows.

        A server writes to an idle connection only to end it, and a closed one reads as the end of the stream. So an
        idle connection with something to read is replaced. A host that vanished silently is not noticed here: the next
        statement fails, as it would in the middle of a request.
        """
        connection = self.connection
        if connection is None or connection.closed or connection.info.transaction_status not in ANSWERING:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection[Any]:
        """Return a new connection. Raises OperationalError at once where the server did not answer a moment ago."""
        if limits.is_away():
            raise psycopg.OperationalError("PostgreSQL did not answer a moment ago.")
        try:
            connection: psycopg.Connection[Any] = super().get_new_connection(conn_params)
        except psycopg.errors.ConnectionTimeout:
            limits.note_away(conn_params["connect_timeout"], "no connection")
            raise
        self.call.connected(connection.fileno())
        if self.timezone is UTC:
            times.register(connection)
        connection.add_notice_handler(self._note)
        return connection

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if failures.is_lost_commit(notice):
            self._lost_commits.append(notice.message_primary or "")
        elif failures.is_refused_commit(notice):
            self._refused_commits.append(notice.message_primary or "")

    def _commit(self) -> None:
        """Commit. Raises OperationalError where a cluster does not know whether its other server committed, and
        IntegrityError where that server refused.
        """
        self._lost_commits.clear()
        self._refused_commits.clear()
        failed = None
        try:
            super()._commit()  # type: ignore[misc]  # the stubs do not know it
        except InternalError as error:
            if not self._lost_commits:
                raise
            failed = error
        if self._refused_commits and failed:
            raise IntegrityError(self._refused_commits[-1]) from failed
        if self._lost_commits:
            raise OperationalError("A server of the cluster was lost at the end of the transaction.") from failed

    def init_connection_state(self) -> None:
        """Prepare the connection for use, with the settings of this process.

        They are set by a statement: poolers refuse them at the start of a connection. One that shares its connections
        between transactions, behind which nothing is prepared, would hand them to others.
        """
        super().init_connection_state()
        if (session := limits.current().session) and self.connection.prepare_threshold:
            with self.connection.cursor() as cursor:
                statement = ", ".join(["set_config(%s, %s, false)"] * len(session))
                cursor.execute(f"SELECT {statement}", [part for setting in session.items() for part in setting])
                # Citus has no plan for values that it does not know yet.
                cursor.execute(
                    "SELECT set_config('plan_cache_mode', 'auto', false) FROM pg_extension WHERE extname = 'citus'"
                )
                if cursor.fetchone():
                    limits.note_cluster()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]  # the stubs do not know it
        finally:
            self.call.disconnected()

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """Return the context in which Django calls PostgreSQL."""
        return _LimitedCall(self)


class _LimitedCall(DatabaseErrorWrapper):
    """A call to PostgreSQL within the limits of this process, whose failure is logged; it raises Django's errors."""

    wrapper: DatabaseWrapper

    def __enter__(self) -> None:
        self.wrapper.call.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wrapper.call.end()
        if kind is not None:
            failures.note(error)
            if lost := failures.lost_server(error):
                kind, error = type(lost), lost
            super().__exit__(kind, error, traceback)
