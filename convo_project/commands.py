"""Lets every command find secrets and a database, beside a running `make up` or alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from convo_project import embedded_postgres, env
from convo_project.home import CannotStartError, claim, ensure_secrets
from convo_project.processes import follow_supervisor
from convo_project.terminal import complain


def read_environment() -> None:
    """What `.env` and CONVO_HOME's secrets say is in the environment. Raises CannotStartError where they are closed."""
    try:
        env.load_files()
    except PermissionError as problem:
        claim(env.home())
        raise CannotStartError(f"{problem.filename} cannot be read ({problem.strerror}).") from None


@contextmanager
def database() -> Iterator[None]:
    """The settings can be read inside the block, and their database is there.

    With DATABASE_URL nothing is made or started. Without one, CONVO_HOME gets its secrets and its embedded server runs;
    whoever needs it last stops it. Raises CannotStartError with the reason.
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
    """Do `action` with a database; the exit code. What is wrong with the set-up is said in a sentence."""
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
    """Run the management command that `arguments` (as in sys.argv) name; the exit code. Ctrl-C is no fault."""
    from django.core.management import execute_from_command_line

    try:
        return with_database(lambda: execute_from_command_line(arguments))
    except KeyboardInterrupt:
        complain("Interrupted. What was done stays done; the same command again does the rest.")
        return 128 + signal.SIGINT


def leave(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the process by way of its `finally` blocks."""
    sys.exit(128 + number)
