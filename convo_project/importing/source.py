"""The database that `manage.py import_database` copies: its address or its home, and what it must be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environ
import psycopg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from conversations import earlier
from convo_project import embedded_postgres, pg_tools
from convo_project.home import CannotStartError, claim, try_lock
from convo_project.importing import plan
from convo_project.importing.copying import ALIKE, Connection
from convo_project.terminal import say

SCHEMES = ("postgres", "postgresql", "psql", "pgsql")
LAST = {"conversations": 122, "memory": 5}  # numbers of the last migrations before 0.3
OLDEST = {"0001_squashed_0036_free_devices", "0036_free_devices"}  # of 0.1.0; what migrations changed in rows is older
UP_LOCK = "up.lock"  # held by a running `make up`

_COLUMNS = """
    SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
    WHERE table_schema = current_schema() GROUP BY 1"""


@contextmanager
def opened(given: str) -> Iterator[Connection]:
    """Yield a connection that reads the source as it is at this moment, and writes nothing.

    given: an address as DATABASE_URL has it, or a home, whose embedded server runs meanwhile

    Raises CannotStartError.
    """
    if "://" in given:
        with _reading(_settings_of(given)) as connection:
            yield connection
        return
    home = home_of(given)
    if home is None:
        raise CannotStartError(
            f"{given} is neither an address such as postgres://convo:…@db/convo nor a CONVO_HOME with an embedded "
            "PostgreSQL."
        )
    claim(home)
    _warn_if_used(home)
    with embedded_postgres.running(home), _reading(_settings_of(embedded_postgres.database_url(home))) as connection:
        yield connection


def home_of(given: str) -> Path | None:
    """Return the home that is given in place of an address, if there is one with an embedded server."""
    home = Path(given).expanduser().resolve()
    return home if "://" not in given and (home / "postgres" / "passwords.json").is_file() else None


def check(connection: Connection) -> None:
    """Raise CannotStartError unless the source is a database of Convo 0.1 or 0.2."""
    if connection.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
        raise CannotStartError("The source is no database of Convo: it has no migrations.")
    rows = connection.execute("SELECT app, name FROM django_migrations WHERE app = ANY (%s)", [list(LAST)]).fetchall()
    ours = {name for app, name in rows if app == "conversations"}
    if not ours:
        raise CannotStartError("The source is no database of Convo: it has none of its migrations.")
    if not ours & set(earlier.MIGRATIONS):
        raise CannotStartError(
            "The source is of Convo 0.3 or newer already. Use it as it is (DATABASE_URL, CONVO_HOME), or copy it by "
            "manage.py backup and manage.py restore."
        )
    newer = [f"{app}.{name}" for app, name in rows if name[:4].isdigit() and int(name[:4]) > LAST[app]]
    if newer:
        raise CannotStartError(f"The source has migrations that this version does not know ({min(newer)}). Update it.")
    if not ours & OLDEST:
        raise CannotStartError("The source is older than Convo 0.1. Update it to 0.2 with that version's make up.")


def columns(connection: Connection) -> dict[str, frozenset[str]]:
    """Return the source's columns by table."""
    return {table: frozenset(names) for table, names in connection.execute(_COLUMNS).fetchall()}


def unreadable(connection: Connection, there: plan.Columns, keys: list[str]) -> int:
    """Return how many of the encrypted values the keys do not decrypt."""
    vault, found = MultiFernet([Fernet(key) for key in keys]), 0
    for table, column in plan.encrypted_columns(there):
        query = psycopg.sql.SQL("SELECT {0} FROM {1} WHERE {0} <> ''").format(
            psycopg.sql.Identifier(column), psycopg.sql.Identifier(table)
        )
        for (token,) in connection.execute(query):
            try:
                vault.decrypt(token)
            except InvalidToken:
                found += 1
    return found


def _settings_of(address: str) -> dict[str, Any]:
    if not re.match(rf"({'|'.join(SCHEMES)})://", address):
        raise CannotStartError("--from must begin with postgres://, or name a CONVO_HOME.")
    try:
        found = environ.Env.db_url_config(address)
    except ValueError:
        raise CannotStartError("--from is no address such as postgres://convo:…@db:5432/convo.") from None
    return dict(found)


@contextmanager
def _reading(database: dict[str, Any]) -> Iterator[Connection]:
    with pg_tools.connect(database) as connection:
        connection.execute(ALIKE)
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


def _warn_if_used(home: Path) -> None:
    if not (home / UP_LOCK).exists():
        return
    lock = try_lock(home / UP_LOCK)
    if lock is None:
        say(f"Convo runs in {home}: what it takes from now on is not in the copy. Stop it first (make down).")
    else:
        os.close(lock)
