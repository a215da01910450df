"""Django's PostgreSQL backend with a health check of persistent connections by their socket."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

ANSWERING = (TransactionStatus.IDLE, TransactionStatus.INTRANS)


class DatabaseWrapper(base.DatabaseWrapper):
    """PostgreSQL with `CONN_HEALTH_CHECKS`, without Django's `SELECT 1` before every request."""

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
