"""Gives every command its secrets and a database, beside a running `make up` or alone."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from conversations import heartbeat
from convo_project import backup, embedded_postgres, env, metrics, resident, restore, telemetry, unfit_database
from convo_project.home import RESTORING, CannotStartError, claim, ensure_secrets
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
    home = env.home()
    if (home / RESTORING).exists():
        raise CannotStartError(f"A restore into {home} did not end. Run 'manage.py restore' again.")
    if env.text("DATABASE_URL"):
        yield
        return
    claim(home)
    ensure_secrets(home)
    with embedded_postgres.running(home):
        env.load_files()
        yield


def with_database(action: Callable[[], None]) -> int:
    """Run `action` with a database and return the exit code. Problems of the set-up are reported in a sentence."""
    follow_supervisor()
    heartbeat.adopt_pipe()
    signal.signal(signal.SIGTERM, leave)
    try:
        with database():
            action()
    except (CannotStartError, ImproperlyConfigured) as problem:
        complain(str(problem))
        return 1
    return 0


def _exposition() -> bytes:
    """Return the metrics, and leave no connection behind in the thread that asks."""
    from django.db import connection

    from conversations.services.jobs.exposition import exposition

    try:
        return exposition()
    finally:
        connection.close()


def manage(arguments: list[str]) -> int:
    """Run the management command that `arguments` (as in sys.argv) name, and return the exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        complain("Interrupted. Finished work is kept; run the same command again for the rest.")
        return 128 + signal.SIGINT


def _run(arguments: list[str]) -> int:
    command, given = arguments[1] if len(arguments) > 1 else "", arguments[2:]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    if command == "backup":
        options = backup.arguments(given)
        return with_database(lambda: backup.back_up(options))
    if command == "import_database":
        return _import_database(given)
    if command == "restore":
        return _restore(restore.arguments(given))
    return with_database(lambda: _execute(arguments))


def _restore(options: argparse.Namespace) -> int:
    """Restore without a database of the home's, and without keys that would be made for it."""
    signal.signal(signal.SIGTERM, leave)
    try:
        read_environment()
        restore.restore(options)
    except (CannotStartError, ImproperlyConfigured) as problem:
        complain(str(problem))
        return 1
    return 0


def _import_database(given: list[str]) -> int:
    from convo_project.importing import command

    options = command.arguments(given)
    return with_database(lambda: command.import_database(options))


def _execute(arguments: list[str]) -> None:
    from django.core.management import execute_from_command_line

    if len(arguments) > 1 and unfit_database.concerns(arguments[1]):
        unfit_database.refuse()
    kind = resident.KINDS.get(arguments[1], "") if len(arguments) > 1 else ""
    if kind:
        import django

        django.setup()  # so that all that the process keeps is there before it settles
    resident.settle(kind)
    if kind == resident.DISPATCHER:
        telemetry.start(kind)
        metrics.serve_on_own_port(_exposition)
    execute_from_command_line(arguments)


def leave(number: int, frame: FrameType | None) -> None:
    """End the process through its `finally` blocks (a signal handler)."""
    sys.exit(128 + number)
