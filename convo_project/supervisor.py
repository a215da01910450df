"""Keeps Convo's processes alive: starts them, prefixes their output, restarts dead or hanging ones, stops all of them.

A process hangs if its main loop has given no sign of life (`conversations/heartbeat.py`) for longer than a bound. It is
asked to end, then killed, and started again as any that died. One that has not given its first sign is starting, for
which it has more time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from convo_project import env
from convo_project.home import CannotStartError
from convo_project.processes import mark, wait_for
from convo_project.pulse import Pulse
from convo_project.terminal import say

STOP_SECONDS = 30.0  # longer than a provider's timeout and the dispatcher's patience, so that a send can finish
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
SETTLED_SECONDS = 60.0  # a process that lived this long restarts after the first pause again
DATABASE_PAUSE = 5.0
BEGIN_SECONDS = 300.0  # within which a process has given its first sign of life
END_SECONDS = 10.0  # between asking a hanging process to end and killing it; its work is done again by others
LONGEST_LOOK = 1.0  # a longer pause between two looks is our own


@dataclass
class Child:
    """A process to keep alive."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0  # when to start it (again)
    pause: float = FIRST_PAUSE
    pulse: Pulse | None = None
    ending: dict[int, float] = field(default_factory=dict)  # hanging processes, and when they were asked to end

    @property
    def pid(self) -> int | None:
        """The running process."""
        return self.process.pid if self.process else None


class Supervisor:
    """Keeps `children` alive until a stop is requested.

    Each child has a process session of its own: a Ctrl-C in the terminal reaches only us, and we decide the order. A
    child dies when we are killed (processes.follow_supervisor).
    """

    def __init__(
        self,
        home: Path,
        children: list[Child],
        keep_database: Callable[[], None],
        hang_seconds: float = float("inf"),
    ) -> None:
        """Keep `children` in `home`. `keep_database` is called again and again to restart the database; it may raise
        CannotStartError. A process without a sign of life for `hang_seconds` is started again."""
        self.home = home
        self.children = children
        self.keep_database = keep_database
        self.hang_seconds = hang_seconds
        self.looked_at = time.monotonic()
        self.database_at = 0.0
        self.stop_requests = 0
        self.readers: list[threading.Thread] = []

    def ask_to_stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Request a stop. A second request does not wait for the children to finish."""
        self.stop_requests += 1

    def run_until(self, condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Keep the children alive until `condition` holds. Return False after `seconds`, or if a stop was requested."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.stop_requests or time.monotonic() > deadline:
                return False
            self._tick()
            time.sleep(0.1)
        return True

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self.database_at:
            try:
                self.keep_database()
            except CannotStartError as problem:
                say(str(problem))
                self.database_at = now + DATABASE_PAUSE
        passed, self.looked_at = min(now - self.looked_at, LONGEST_LOOK), now
        for child in self.children:
            if child.process and _has_ended(child.process):
                self._note_death(child)
            self._end_hanging(child, passed)
            if not child.process and now >= child.start_at:
                self._start(child)

    def _start(self, child: Child) -> None:
        child.started_at = time.monotonic()
        pulse = Pulse()
        try:
            child.process = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=env.PROJECT,
                env={
                    **os.environ,
                    "CONVO_HOME": str(self.home),
                    "PYTHONUNBUFFERED": "1",
                    **mark(self.home),
                    **pulse.environment,
                },
                start_new_session=True,
                pass_fds=(pulse.writing,),
            )
        except OSError as problem:
            pulse.close()
            say(f"{child.name} cannot be started ({problem.strerror}); trying again in {LONGEST_PAUSE:g} s")
            child.start_at = time.monotonic() + LONGEST_PAUSE
            return
        finally:
            pulse.inherited()
        child.pulse = pulse
        reader = threading.Thread(target=_pass_on, args=(child.name, child.process.stdout), daemon=True)
        reader.start()
        self.readers = [thread for thread in self.readers if thread.is_alive()] + [reader]

    def _end_hanging(self, child: Child, passed: float) -> None:
        """Ask processes of the child that hang to end, and kill those that do not."""
        if not child.process or not child.pulse:
            return
        child.pulse.look(child.process.pid, passed)
        hanging = child.pulse.silent(self.hang_seconds)
        if child.pulse.never_began(max(BEGIN_SECONDS, self.hang_seconds)):
            hanging = [child.process.pid]
        for pid in hanging:
            if pid not in child.ending:
                child.ending[pid] = time.monotonic()
                say(f"{child.name} hangs: no sign of life for {self.hang_seconds:g} s; ending process {pid}")
                _signal(pid, signal.SIGTERM)
            elif time.monotonic() - child.ending[pid] > END_SECONDS:
                _signal(pid, signal.SIGKILL)
        child.ending = {pid: at for pid, at in child.ending.items() if pid in hanging}

    def _note_death(self, child: Child) -> None:
        """Kill what a dead child left behind, and plan its restart."""
        _kill_session(child)
        child.ending = {}
        lived = time.monotonic() - child.started_at
        pause = FIRST_PAUSE if lived > SETTLED_SECONDS else child.pause
        child.start_at, child.pause = time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE)
        say(f"{child.name} {_how_it_ended(child)} after {lived:.0f} s; starting it again in {pause:g} s")
        child.process = None

    def stop(self) -> None:
        """Stop all children. They may finish their work for at most STOP_SECONDS."""
        alive = [child for child in self.children if child.process]
        for child in alive:
            if child.process:
                child.process.terminate()
        requests = self.stop_requests
        wait_for(
            lambda: (
                all(child.process and _has_ended(child.process) for child in alive)
                or self.stop_requests > max(requests, 1)
            ),
            STOP_SECONDS,
        )
        for child in alive:
            _kill_session(child)
            child.process = None
        for reader in self.readers:  # for their last lines
            reader.join(timeout=1)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process is dead. It is not reaped, so that its pid still names its process session."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_session(child: Child) -> None:
    if child.process:
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
    if child.pulse:
        child.pulse.close()
        child.pulse = None


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _how_it_ended(child: Child) -> str:
    code = child.process.returncode if child.process else 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _pass_on(name: str, lines: IO[bytes]) -> None:
    with lines:
        for line in lines:
            say(f"{name:<11}| {line.decode(errors='replace').rstrip()}")
