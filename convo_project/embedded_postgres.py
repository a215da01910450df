"""A private PostgreSQL from a Python package, for machines without one.

Only its owner can read its socket and data (0700). It listens on no network address, and every role needs its
password. The application's role is not a superuser. `start` creates the server on first use and finds a running one
again; a caller that needs it for a while uses `running`. Every process may be killed at any time: open files hold the
locks, which end with their process, and a data folder gets its final name only when it is complete.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from convo_project import env, postgres_record
from convo_project.home import CannotStartError, locked, open_lock, try_lock
from convo_project.postgres_place import Place, folder, make_folders, owner_of_data, place_of, run, run_to_end
from convo_project.processes import command_line, end, owner, pids, wait_for

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

SUPERUSER = "postgres"
ROLE = DATABASE = "convo"
PORT = 5432  # only part of the socket's name
START_SECONDS = 120.0  # recovery after a crash included
STOP_SECONDS = 60.0
LOCK_SECONDS = 30.0
MOST_LOG_BYTES = 5_000_000

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "dynamic_shared_memory_type": "mmap",  # a small /dev/shm, as containers have it, would be fatal
    "max_connections": "200",
    "shared_buffers": "128MB",
    # What clients did wrong they are told themselves; statements and details of errors would carry message text here.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}

# Servers this process started, kept so that Python reaps one that ends.
_started: list[subprocess.Popen[bytes]] = []


def database_url(home: Path) -> str:
    """Return the address of the embedded server of `home` for the application's role, in the form of DATABASE_URL.

    Nothing is started. Raises ImproperlyConfigured if there is no such server yet, or it belongs to another user.
    """
    place, password = place_of(home), _password(home)
    return f"postgres://{ROLE}:{password}@:{PORT}/{quote(str(place.socket))}/{DATABASE}"


def copilot_role() -> str:
    """Return the role of the copilot's transactions, which sees the signed-in user's rows only."""
    return env.name("COPILOT_ROLE", "convo_copilot")


def client_environment(home: Path) -> dict[str, str]:
    """Return libpq's variables for the application's role on the server of `home`, for psql, pgbench and others."""
    return {
        "PGHOST": str(place_of(home).socket),
        "PGPORT": str(PORT),
        "PGUSER": ROLE,
        "PGPASSWORD": _password(home),
        "PGDATABASE": DATABASE,
    }


def _password(home: Path) -> str:
    try:
        return str(postgres_record.read(place_of(home))[ROLE])
    except OSError as problem:
        raise ImproperlyConfigured(
            f"There is no DATABASE_URL and no embedded PostgreSQL in {home} ({problem.strerror}). "
            "Run 'make up' or any 'manage.py' command, which sets one up, or set DATABASE_URL."
        ) from None


def start(home: Path) -> None:
    """Start the server of `home`, creating it if there is none, and wait until it takes connections.

    It keeps running after this process ends. Raises CannotStartError with the reason.
    """
    with _turn(home) as place:
        _start(place)


def stop(home: Path) -> None:
    """Stop the server of `home`. Its data are on disk afterwards."""
    if (home / "postgres").is_dir():
        with _turn(home) as place:
            _stop(place)


def stop_if_unused(home: Path) -> None:
    """Stop the server of `home` unless somebody is inside `running`."""
    if (home / "postgres").is_dir():
        with _turn(home) as place:
            users = try_lock(place.own / "users.lock")
            if users is not None:
                _stop(place)
                os.close(users)


@contextmanager
def running(home: Path) -> Iterator[None]:
    """Run the server of `home` inside the block; the last user to leave stops it.

    A shared lock counts the users. The death of a process releases it.
    """
    folder(home / "postgres", os.geteuid(), 0o700)
    users = open_lock(home / "postgres" / "users.lock")
    try:
        # This never waits long: the lock is taken exclusively only for the moment of a stop.
        fcntl.flock(users, fcntl.LOCK_SH)
        start(home)
        yield
    finally:
        if os.fstat(users).st_nlink:
            with _turn(home) as place:
                if _sole_user(users):
                    _stop(place)
        elif not home.exists():  # deleted meanwhile, with the lock; a new server does not count us
            _end(place_of(home))
        os.close(users)


def _sole_user(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(home: Path) -> bool:
    """Return whether the server of `home` exists. It may still be starting."""
    return _postmaster(place_of(home)) is not None


def remove(home: Path) -> None:
    """End the server of `home` and delete its data, including those that root keeps elsewhere."""
    place = place_of(home)
    _end(place)
    shutil.rmtree(place.base, ignore_errors=True)
    shutil.rmtree(place.socket, ignore_errors=True)


def discard(home: Path) -> None:
    """Stop the server of `home` and delete the data that were made for it; those of an earlier home are kept."""
    with _turn(home) as place:
        _stop(place)
        if postgres_record.path_of(place).exists():
            shutil.rmtree(place.data, ignore_errors=True)
            postgres_record.path_of(place).unlink()


@contextmanager
def _turn(home: Path) -> Iterator[Place]:
    """Yield the place of `home`'s server while nobody else starts or stops it."""
    place = place_of(home)
    folder(place.own, os.geteuid(), 0o700)
    with locked(place.own / "start.lock"):
        yield place


# --- starting ---------------------------------------------------------------------------------------------------------


def _start(place: Place) -> None:
    if postgres_record.path_of(place).exists() and _comes_up(place):
        return
    place = _follow_a_moved_home(place)
    postgres_record.refuse_if_data_are_missing(place)
    make_folders(place)
    _end(place)  # backends that a killed server left
    lock = _server_lock(place)
    try:
        if not place.data.exists() or not postgres_record.path_of(place).exists():
            _initialise(place, lock)
        _launch(place, lock)
    finally:
        os.close(lock)
    if not _comes_up(place):
        words = " / ".join(_lines(_log_path(place))[-4:])
        raise CannotStartError(f"PostgreSQL did not start: {words} (all of it: {_log_path(place)}).")
    _make_copilot_role(place)


def _comes_up(place: Place) -> bool:
    """Return whether a server takes connections, after waiting for one that is starting."""

    def decided() -> bool:
        lines = _lines(place.data / "postmaster.pid")
        return (len(lines) > 7 and lines[7].strip() == "ready") or not _processes(place)

    return _postmaster(place) is not None and wait_for(decided, START_SECONDS) and _postmaster(place) is not None


def _server_lock(place: Place) -> int:
    """Return the lock that every process of the server inherits, so that it lasts as long as any of them.

    It tells other containers, which cannot see our processes, that there is a server. Taking it waits for an initdb
    whose starter was killed.
    """
    held: list[int] = []

    def taken() -> bool:
        lock = try_lock(place.own / "server.lock")
        held.extend([] if lock is None else [lock])
        return bool(held)

    if not wait_for(taken, LOCK_SECONDS):
        raise CannotStartError(
            f"A server that cannot be seen from here (in another container?) uses {place.data}. "
            "Stop it, or set CONVO_HOME to another folder."
        )
    return held[0]


def _launch(place: Place, lock: int) -> None:
    # All of its processes are gone, so whatever these say is out of date; its pid may be some other program's by now.
    for stale in (place.data / "postmaster.pid", *place.socket.glob(".s.PGSQL.*")):
        stale.unlink(missing_ok=True)
    settings = {**SETTINGS, "unix_socket_directories": str(place.socket), "cluster_name": place.cluster_name}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = _log_path(place)
    if log.exists() and log.stat().st_size > MOST_LOG_BYTES:
        log.replace(log.with_suffix(".old"))
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        server = run(place, "postgres", "-D", str(place.data), *arguments, stdout=output, keep_open=lock)
    _started.append(server)
    wait_for(lambda: _postmaster(place) is not None or server.poll() is not None, START_SECONDS)


# --- making -----------------------------------------------------------------------------------------------------------


def _initialise(place: Place, lock: int) -> None:
    """Create the data folder with the application's role and database, and record the passwords."""
    if place.data.exists():
        _set_aside(place)
    unfinished = place.base / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    folder(unfinished, place.uid, 0o700)
    passwords = {SUPERUSER: secrets.token_hex(24), ROLE: secrets.token_hex(24)}
    run_to_end(
        place,
        *("initdb", "-D", str(unfinished), "-U", SUPERUSER, "--pwfile=/dev/stdin", "--auth=scram-sha-256"),
        *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        text=passwords[SUPERUSER],
        keep_open=lock,
    )
    # Without a server and its socket, so that a folder with the final name is complete.
    answer = run_to_end(
        place,
        *("postgres", "--single", "-D", str(unfinished), "-c", "log_min_error_statement=panic", SUPERUSER),
        text=f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{passwords[ROLE]}'\nCREATE DATABASE {DATABASE} OWNER {ROLE}",
        keep_open=lock,
    )
    if "ERROR:" in answer:
        raise CannotStartError(f"PostgreSQL's database could not be made: {answer.strip()}")
    postgres_record.write(place, passwords, complete=False)
    unfinished.rename(place.data)
    postgres_record.write(place, passwords)


def _set_aside(place: Place) -> None:
    """Keep data whose passwords are lost, because CONVO_HOME (of root) or the file was deleted."""
    aside = place.base / f"data.{datetime.now(UTC):%Y%m%d%H%M%S}"
    place.data.rename(aside)
    logger.warning(
        "The database of a deleted %s is kept in %s. Delete it when you no longer need it.", place.own, aside
    )


def _follow_a_moved_home(place: Place) -> Place:
    """Move root's data, which lie outside the home, to the home's new path, and return the place where they are now."""
    if place.account is None or place.base.exists() or not postgres_record.path_of(place).exists():
        return place
    record = postgres_record.read(place)
    old = Place(Path(record["home"]), place.own, Path(record["base"]), owner_of_data(Path(record["base"]) / "data"))
    if old.account is None or old.home.exists():
        return place
    _stop(old)
    old.base.rename(place.base)
    place = place_of(place.home)
    postgres_record.write(place, record)
    return place


def _make_copilot_role(place: Place) -> None:
    """Let the application assume the copilot's role, which it may not create itself.

    This happens at each start, for homes that are older than the copilot.
    """
    from psycopg import sql

    name = copilot_role()
    with _superuser(place) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchall():
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), sql.Identifier(ROLE)))


def hurry(home: Path) -> None:
    """Make the running server of `home` wait for no disk and tidy nothing by itself, also after a restart.

    For short-lived data that may be lost: a crash of the machine may destroy all of them.
    """
    with _superuser(place_of(home)) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


def _superuser(place: Place) -> psycopg.Connection:
    import psycopg

    socket, password = str(place.socket), postgres_record.read(place)[SUPERUSER]
    return psycopg.connect(host=socket, port=PORT, user=SUPERUSER, password=password, dbname=SUPERUSER, autocommit=True)


# --- stopping ---------------------------------------------------------------------------------------------------------


def _stop(place: Place) -> None:
    pid = _postmaster(place)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # a "fast" stop: sessions are ended, the data written
        wait_for(lambda: not _processes(place), STOP_SECONDS)
    _end(place)
    for server in _started:
        server.poll()


def _end(place: Place) -> None:
    """End the remaining processes of the server, gently at first."""
    steps = ((signal.SIGTERM, 2.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
    if not end(lambda: _processes(place), steps):
        raise CannotStartError(
            f"Processes of an earlier PostgreSQL in {place.data} do not end: {_processes(place)}. Kill them."
        )


# --- looking ----------------------------------------------------------------------------------------------------------


def _postmaster(place: Place) -> int | None:
    """Return the pid of the running server, or None."""
    lines = _lines(place.data / "postmaster.pid")
    pid = int(lines[0]) if lines and lines[0].isdigit() else 0
    return pid if pid and _is_postmaster(place, pid) else None


def _is_postmaster(place: Place, pid: int) -> bool:
    return owner(pid) == place.uid and os.fsencode(place.data) in command_line(pid).split(b"\0")


def _processes(place: Place) -> list[int]:
    """Return all processes of the server: the first one by its argument, the others by the title it gives them.

    Everybody can read titles and owners. A container's root cannot read the folder in which a process works.
    """
    title = f"postgres: {place.cluster_name}: ".encode()
    return [
        pid
        for pid in pids()
        if _is_postmaster(place, pid) or (owner(pid) == place.uid and command_line(pid).startswith(title))
    ]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _log_path(place: Place) -> Path:
    return place.own / "postgres.log"
