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


# --- servers of a cluster ---------------------------------------------------------------------------------------------
# Citus says XX000, which is a fault of the server, of a connection to another server that broke off under a statement.
_ELSEWHERE = "while executing command on "
_BROKE_OFF = ("closed the connection", "connection reset", "no connection to the server", "connection not open", "eof")
# It warns of a transaction on another server that was lost at its COMMIT, which may be done there or not, and then says
# XX000 or that all went well. Where that server refused what a deferred constraint forbids, a warning before says so.
_NOT_COMMITTED = "failed to commit transaction on "


def lost_server(error: BaseException | None) -> psycopg.OperationalError | None:
    """Return the error of a lost connection, where a cluster's server lost that to another; None for any other."""
    if not isinstance(error, psycopg.errors.InternalError_) or _ELSEWHERE not in (error.diag.context or ""):
        return None
    sentence = (error.diag.message_primary or "").lower()
    if sentence and not any(part in sentence for part in _BROKE_OFF):
        return None
    lost = psycopg.OperationalError("A server of the cluster was lost.")
    lost.__cause__ = error
    return lost


def is_lost_commit(notice: psycopg.errors.Diagnostic) -> bool:
    """Return whether a notice says that it is not known whether another server committed."""
    return (notice.message_primary or "").startswith(_NOT_COMMITTED)


def is_refused_commit(notice: psycopg.errors.Diagnostic) -> bool:
    """Return whether a notice says that a constraint of another server forbids what was to be committed."""
    return (notice.sqlstate or "").startswith("23")


def _reason(error: psycopg.Error) -> str:
    sentence = str(error).lower()
    return next((word for part, word in REASONS.items() if part in sentence), "unknown")
