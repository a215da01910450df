"""A job beside a transaction that has changed a row and not committed yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.db import connection

from conversations.services.core.pipelines import connection_settings

SECONDS = 20.0


def beside_change(change: str, values: list[Any], job: Callable[[], Any]) -> Any:
    """Return what the job returns, or the exception it raises. The change is committed once the job waits for its row.

    change: the statement of the other transaction, with a placeholder for each of the values
    """
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(job())
        except Exception as error:
            result.append(error)
        finally:
            connection.close()

    with psycopg.connect(**connection_settings()) as other:
        other.execute(change, values)  # type: ignore[arg-type]
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        until = time.monotonic() + SECONDS
        while not other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert thread.is_alive(), f"it did not wait for the row: {result}"
            assert time.monotonic() < until, "it neither waited for the row nor ended"
            time.sleep(0.01)
    thread.join(SECONDS)
    [ended] = result
    return ended
