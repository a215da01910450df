"""Signs of life: a process that stays tells its supervisor about once a second that its main loop turns.

The supervisor (`make up`) gives each of its processes the writing end of a pipe, whose number is in CONVO_HEARTBEAT.
Forked processes have it as well; each writes its own pid. Without a supervisor nothing is written, but for
the file that CONVO_ALIVE_FILE names.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

VARIABLE = "CONVO_HEARTBEAT"
FILE = "CONVO_ALIVE_FILE"  # a file to touch, for health checks of containers (convo_project/alive.py)
EVERY_SECONDS = 1.0

_pipe: int | None = None
_file = os.environ.get(FILE, "")
_next = 0.0


def adopt_pipe() -> None:
    """Take the supervisor's pipe, if there is one. Programs that this process starts do not get it."""
    global _pipe
    number = os.environ.pop(VARIABLE, "")
    if number.isdigit():
        _pipe = int(number)
        os.set_inheritable(_pipe, False)


def beat() -> None:
    """Tell the supervisor that this process's main loop turns. Call it each time the loop does."""
    global _next
    now = time.monotonic()
    if now < _next:
        return
    _next = now + EVERY_SECONDS
    with suppress(OSError):  # a pipe that is full, because the supervisor stands still
        if _pipe is not None:
            os.write(_pipe, b"%d\n" % os.getpid())
        if _file:
            with open(_file, "wb"):
                pass
