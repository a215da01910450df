"""Why a call to PostgreSQL failed, for the log: class and SQLSTATE, without the sentence, which can quote a row."""

from __future__ import annotations

import logging
import time

import psycopg

log = logging.getLogger(__name__)

# What callers expect and handle: a row that is there already, a value that no column takes, and rows that others hold.
EXPECTED = (psycopg.IntegrityError, psycopg.DataError)
# A server that refuses a connection says no SQLSTATE to the client's library; parts of its sentences, and a word each.
REASONS = {
    "timeout": "timeout",
    "did not answer": "timeout",
    "refused": "refused",
    "no such file": "no_socket",
    "authentication failed": "authentication",
    "too many": "too_many_connections",
    "remaining connection slots": "too_many_connections",
    "startup parameter": "startup_parameter",
    "starting up": "starting_up",
    "shutting down": "shutting_down",
    "recovery mode": "recovering",
    "does not exist": "no_such_database_or_role",
    "closed the connection": "connection_closed",
    "connection reset": "connection_closed",
    "ssl": "ssl",
}
EVERY_SECONDS = 1.0  # for each reason: an outage fails every call

_noted: dict[str, float] = {}


def note(error: BaseException | None) -> None:
    """Log why a call failed, unless it is an error that callers expect; the same reason once a second."""
    if not isinstance(error, psycopg.Error) or isinstance(error, EXPECTED):
        return
    kind, state = type(error).__name__, error.sqlstate
    reason = f"sqlstate={state}" if state else f"reason={_reason(error)}"
    now = time.monotonic()
    if now - _noted.get(f"{kind} {reason}", -EVERY_SECONDS) >= EVERY_SECONDS:
        _noted[f"{kind} {reason}"] = now
        log.warning("a database call failed: class=%s %s", kind, reason)


def _reason(error: psycopg.Error) -> str:
    sentence = str(error).lower()
    return next((word for part, word in REASONS.items() if part in sentence), "unknown")
