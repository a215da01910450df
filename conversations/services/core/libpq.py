"""The one function of libpq that is needed here and that psycopg does not offer: a Sync that is sent with what follows.

`PGconn.pipeline_sync` hands the socket what there is, once for each statement: a system call, and PostgreSQL wakes for
each. libpq has a Sync that waits in its buffer since version 17
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html#LIBPQ-PQSENDPIPELINESYNC).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

LOADED = Path("/proc/self/maps")
Sync = Callable[[Any], None]  # of a PGconn


def buffered_sync() -> Sync:
    """Return a function that adds a Sync to a pipeline and raises psycopg.OperationalError where that fails.

    Where the function of libpq is not found, it is `pipeline_sync`.
    """
    with suppress(OSError, AttributeError):
        loaded = {line.split()[-1] for line in LOADED.read_text().splitlines() if "/libpq" in line}
        if len(loaded) == 1:  # psycopg's
            send = ctypes.PyDLL(loaded.pop()).PQsendPipelineSync  # PyDLL keeps the GIL: it only fills a buffer
            send.argtypes, send.restype = [ctypes.c_void_p], ctypes.c_int
            return _checked(send)
    return _at_once


def _checked(send: Callable[[int | None], int]) -> Sync:
    def sync(connection: Any) -> None:
        if send(connection.pgconn_ptr) != 1:
            raise psycopg.OperationalError("The connection takes nothing more.")

    return sync


def _at_once(connection: Any) -> None:
    connection.pipeline_sync()
