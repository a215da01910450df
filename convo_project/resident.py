"""Settings of the processes that stay and serve: the memory they begin with, and the limits of their database calls."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

from convo_project import env
from convo_project.postgresql.limits import Limits, set_limits

IDLE_IN_TRANSACTION_SECONDS = 60
M_MMAP_THRESHOLD = -3
LARGE_BLOCK = 256 * 1024  # bytes
COLLECT_AFTER = 20_000, 20, 100  # objects of the youngest generation, and collections of each before the next older one
WEB, DISPATCHER, QUEUE = "web", "dispatcher", "queue"
KINDS = {"dispatch": DISPATCHER, "qcluster": QUEUE}  # by management command


def settle(kind: str = "") -> None:
    """Make the process one of that kind, '' for a command; call it once everything is imported, before connecting.

    What was imported lives as long as the process: the garbage collector need not look at it again. A collection that
    does costs more than the rest of a reply. What is young is collected less often than Python would.
    """
    set_limits(limits_of(kind))
    if kind:
        _return_large_memory()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)


def _return_large_memory() -> None:
    """Let large blocks, such as the bodies of requests, go back to the system when they are freed (glibc's mallopt).

    By itself glibc keeps more and more of them for a next time, in a pool for each thread.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def hang_seconds() -> float:
    """Return the seconds without a sign of life after which a process counts as hanging; infinity for never.

    A main loop that waits for a database which stands still does not hang: it waits in turn for a few calls.
    """
    seconds = env.seconds("HANG_SECONDS", 60, least=0, most=86_400)
    return max(seconds, 3 * _database_wait()) if seconds else float("inf")


def _database_wait() -> float:
    return env.seconds("DATABASE_WAIT_SECONDS", 8, least=0, most=600)


def limits_of(kind: str) -> Limits:
    """Return the database limits of a kind of process: none for a command or the queue, whose jobs may take long."""
    if kind not in (WEB, DISPATCHER):
        return Limits()
    wait = _database_wait()
    lock = env.seconds("DATABASE_LOCK_SECONDS", 5, least=0, most=600)
    session = {
        "statement_timeout": _milliseconds(wait),
        "lock_timeout": _milliseconds(lock),
        "idle_in_transaction_session_timeout": _milliseconds(IDLE_IN_TRANSACTION_SECONDS),
    }
    if kind == DISPATCHER:
        # A new connection would plan each long statement five times before it keeps a plan.
        session["plan_cache_mode"] = "force_generic_plan"
    return Limits(wait, session)


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
