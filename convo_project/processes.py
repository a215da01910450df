"""Finds processes, ends them, and lets them die with their supervisor (on Linux, by /proc and prctl)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

SUPERVISOR = "CONVO_SUPERVISOR"  # in the environment of everything `make up` starts: its pid and its home
PR_SET_PDEATHSIG = 1

_pid = 0


def follow_supervisor() -> None:
    """Make this process die with the `make up` that started it, however that dies; forked processes follow in turn.

    Call it before anything is forked. The kernel watches the thread that forks, not its process: what a thread forks
    dies with the thread.
    """
    global _pid
    supervisor = os.environ.pop(SUPERVISOR, "").partition(" ")[0]
    if supervisor:
        _pid = os.getpid()
        _die_with(int(supervisor))
        os.register_at_fork(after_in_child=_follow_the_forker)


def _follow_the_forker() -> None:
    global _pid
    parent, _pid = _pid, os.getpid()
    _die_with(parent)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)


def mark(home: Path) -> dict[str, str]:
    """Return the variable that makes a process we start follow us, and lets `supervised` find it."""
    return {SUPERVISOR: f"{os.getpid()} {home}"}


def supervised(home: Path) -> list[int]:
    """Return the processes that a `make up` in `home`, alive or dead, started, with their own children."""
    return [pid for pid in pids() if _home_of(pid) == os.fsencode(home)]


def _home_of(pid: int) -> bytes:
    marks = [part for part in _read(pid, "environ").split(b"\0") if part.startswith(f"{SUPERVISOR}=".encode())]
    return marks[0].partition(b" ")[2] if marks else b""


def pids() -> list[int]:
    """Return all visible processes except our own."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def owner(pid: int) -> int | None:
    """Return the user that a process runs as, or None if it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def command_line(pid: int) -> bytes:
    """Return the arguments, or the title that replaced them; empty for a dead process that was not reaped yet."""
    return _read(pid, "cmdline")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or somebody else's
        return b""


def end(find: Callable[[], list[int]], steps: Iterable[tuple[signal.Signals, float]]) -> bool:
    """Send the processes of `find` each signal in turn, waiting its seconds. Return True when all are gone."""
    for number, seconds in steps:
        for pid in find():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_for(lambda: not find(), seconds):
            return True
    return False


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait at most `seconds` for the condition, and return whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
