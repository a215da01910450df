"""Django's PostgreSQL backend, except that it looks at the socket to see whether a kept connection still lives."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

ANSWERING = (TransactionStatus.IDLE, TransactionStatus.INTRANS)


class DatabaseWrapper(base.DatabaseWrapper):
    """PostgreSQL for persistent connections: `CONN_HEALTH_CHECKS` without Django's `SELECT 1` before every request."""

    def is_usable(self) -> bool:
        """Whether the connection still stands, as far as our end of the socket knows.

        A server speaks on an idle connection only to say that it is ending it (or it has closed it, which reads as the
        end of the stream), so an idle connection with something to read is replaced. A host that vanished without a
        word is not seen here: the next statement fails, as it would in the middle of a request.
        """
        connection = self.connection
        if connection is None or connection.closed or connection.info.transaction_status not in ANSWERING:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)
