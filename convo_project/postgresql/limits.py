"""Limits of how long this process waits for PostgreSQL, so that a frozen or vanished server is an error in seconds.

PostgreSQL itself ends statements, waits for locks and transactions that nobody goes on with. A server that is frozen
ends nothing, and on a Unix socket nothing else does: a thread of ours looks at the calls that are under way, and shuts
the socket of one that takes too long down. The call fails as if the server had closed the connection.

Processes that serve set limits; commands, migrations and the queue's jobs, which may take long, have none.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from weakref import WeakSet

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0  # after a server did not answer: nobody else waits for it meanwhile
MOST_BETWEEN_LOOKS = 1.0  # seconds
SPARE = 1.25  # PostgreSQL ends a statement before we end the connection, and says why


@dataclass(frozen=True)
class Limits:
    """The limits of a kind of process.

    wait        seconds that a call to PostgreSQL may take; 0: no limit
    session     PostgreSQL's settings by name, for each of the process's connections
    """

    wait: float = 0.0
    session: dict[str, str] = field(default_factory=dict)


class Call:
    """A call to PostgreSQL over one connection, which may be cut off. It is used by one thread at a time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._until: float | None = None
        self._socket: socket.socket | None = None

    def connected(self, number: int) -> None:
        """Take the connection's socket. Ours is a second handle, so that its number never means another connection."""
        self.disconnected()
        with self._guard:
            self._socket = socket.socket(fileno=os.dup(number))

    def disconnected(self) -> None:
        """Let the socket go."""
        with self._guard:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def begin(self) -> None:
        """Count from now, if this process has a limit."""
        if _limits.wait:
            self._until = time.monotonic() + _limits.wait * SPARE
            _look_after(self)

    def end(self) -> None:
        """Stop counting."""
        if self._until is not None:
            with self._guard:
                self._until = None

    def cut_if_late(self, now: float) -> bool:
        """Shut the socket down if the call takes too long, and return whether it did."""
        with self._guard:
            if self._until is None or now < self._until or self._socket is None:
                return False
            self._until = None
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                return False
            return True


_limits = Limits()
_calls: WeakSet[Call] = WeakSet()
_counting = threading.Lock()  # held while the calls are read or added to
_looking = threading.Lock()  # held while there is a thread that looks
_away_until = 0.0
_is_cluster = False


def set_limits(limits: Limits) -> None:
    """Let this process, and those that it forks, keep these limits; connections that are open keep their settings."""
    global _limits
    _limits = limits


def current() -> Limits:
    """Return the limits of this process."""
    return _limits


def note_cluster() -> None:
    """Note that the server asks others: a call that it does not answer says nothing of its other calls."""
    global _is_cluster
    _is_cluster = True


def note_away(seconds: float, consequence: str, *, of_all: bool = True) -> None:
    """Note that the server did not answer for so long, and log it: for a moment nobody tries to connect.

    of_all: False where others may be answered
    """
    global _away_until
    if of_all:
        _away_until = time.monotonic() + PAUSE_SECONDS
    log.warning("the database did not answer for %.0f s: %s", seconds, consequence)


def is_away() -> bool:
    """Return whether the server did not answer a moment ago."""
    return bool(_limits.wait) and time.monotonic() < _away_until


def _look_after(call: Call) -> None:
    if call not in _calls:
        with _counting:
            _calls.add(call)
    if _looking.acquire(blocking=False):
        threading.Thread(target=_look, name="database-limits", daemon=True).start()


def _look() -> None:
    while wait := _limits.wait:
        time.sleep(min(wait / 4, MOST_BETWEEN_LOOKS))
        with _counting:
            calls = list(_calls)
        now = time.monotonic()
        if late := sum(call.cut_if_late(now) for call in calls):
            note_away(wait * SPARE, f"cut connections={late}", of_all=not _is_cluster)
    _looking.release()


def _begin_anew() -> None:
    """Forget the parent's calls, whose connections are not ours, and its thread, which a child does not have."""
    global _calls, _counting, _looking
    _calls, _counting, _looking = WeakSet(), threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)
