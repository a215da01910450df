"""The signs of life of a supervised process and of what it forked, as the supervisor reads them from a pipe."""

from __future__ import annotations

import os
from contextlib import suppress

from conversations.heartbeat import VARIABLE
from convo_project.processes import command_line

MOST_BYTES = 65_536  # what a pipe holds


class Pulse:
    """The signs of life of one session of processes.

    Silence is counted in seconds for which the supervisor itself was looking. A machine that stood still, with all of
    its processes, makes nobody look silent.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self.writing, False)
        self._silent: dict[int, float] = {}  # by the pid of each process that has given a sign
        self._since_any = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """Return the variable by which a process that inherits `writing` finds it."""
        return {VARIABLE: str(self.writing)}

    def inherited(self) -> None:
        """Close our copy of the writing end, once the process has its own."""
        os.close(self.writing)

    def close(self) -> None:
        """Close the reading end."""
        os.close(self._reading)

    def look(self, session: int, passed: float) -> None:
        """Count the silence of each process of the session.

        passed: seconds since the last look for which the supervisor was looking
        """
        self._silent = {pid: silent + passed for pid, silent in self._silent.items() if _is_of(session, pid)}
        self._since_any += passed
        for pid in self._signs():
            if _is_of(session, pid):
                self._silent[pid] = self._since_any = 0.0

    def silent(self, seconds: float) -> list[int]:
        """Return the processes that have given signs of life, and none for longer than `seconds`."""
        return [pid for pid, silent in self._silent.items() if silent > seconds]

    def never_began(self, seconds: float) -> bool:
        """Return whether there is no process that has given a sign, and has not been for longer than `seconds`."""
        return not self._silent and self._since_any > seconds

    def _signs(self) -> set[int]:
        with suppress(BlockingIOError):
            return {int(pid) for pid in os.read(self._reading, MOST_BYTES).split() if pid.isdigit()}
        return set()


def _is_of(session: int, pid: int) -> bool:
    """Return whether a process of the session has this pid and lives."""
    try:
        return os.getsid(pid) == session and bool(command_line(pid))
    except ProcessLookupError:
        return False
