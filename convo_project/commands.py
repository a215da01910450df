"""Gives every command its secrets and a database, beside a running `make up` or alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from convo_project import embedded_postgres, env, resident
from convo_project.home import CannotStartError, claim, ensure_secrets
from convo_project.processes import follow_supervisor
from convo_project.terminal import complain


def read_environment() -> None:
    """Load `.env` and CONVO_HOME's secrets into the environment. Raises CannotStartError if they cannot be read."""
    try:
        env.load_files()
    except PermissionError as problem:
        claim(env.home())
        raise CannotStartError(f"{problem.filename} cannot be read ({problem.strerror}).") from None


@contextmanager
def database() -> Iterator[None]:
    """Provide readable settings and a running database inside the block.

    With DATABASE_URL nothing is created or started. Without it, CONVO_HOME gets its secrets and its embedded server
    runs; its last user stops it. Raises CannotStartError with the reason.
    """
    read_environment()
    if env.text("DATABASE_URL"):
        yield
        return
    home = env.home()
    claim(home)
    ensure_secrets(home)
    with embedded_postgres.running(home):
        env.load_files()
        yield


def with_database(action: Callable[[], None]) -> int:
    """Run `action` with a database and return the exit code. Problems of the set-up are reported in a sentence."""
    follow_supervisor()
    signal.signal(signal.SIGTERM, leave)
    try:
        with database():
            action()
    except (CannotStartError, ImproperlyConfigured) as problem:
        complain(str(problem))
        return 1
    return 0


def manage(arguments: list[str]) -> int:
    """Run the management command that `arguments` (as in sys.argv) name, and return the exit code."""
    try:
        return with_database(lambda: _execute(arguments))
    except KeyboardInterrupt:
        complain("Interrupted. Finished work is kept; run the same command again for the rest.")
        return 128 + signal.SIGINT


def _execute(arguments: list[str]) -> None:
    from django.core.management import execute_from_command_line

    kind = resident.KINDS.get(arguments[1], "") if len(arguments) > 1 else ""
    if kind:
        import django

        django.setup()  # so that all that the process keeps is there before it settles
    resident.settle(kind)
    execute_from_command_line(arguments)


def leave(number: int, frame: FrameType | None) -> None:
    """End the process through its `finally` blocks (a signal handler)."""
    sys.exit(128 + number)
