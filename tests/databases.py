"""Databases for tests: copies of one that was migrated once, and emptied of what a test left in them.

Migrating takes seconds, a run of the tests needs a dozen databases, and every test that commits leaves rows.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import environ
from django.conf import settings
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction

from conversations.services.core.cluster import is_cluster
from convo_project.postgres_place import EDITION, PACKAGE

LOCK = 4_712
CLUSTER = "CITUS_DATABASE_URL"
_PREFIX = "convo_template_"
QUICK = {
    # Seldom used connections would plan every long statement anew, at 10 ms, as often as it takes to settle on a plan.
    "plan_cache_mode": "force_generic_plan",
    # Without sequential scans a look at empty tables seems dear, and two processes are begun that shall share it.
    "max_parallel_workers_per_gather": "0",
}
OF_MIGRATIONS = {"django_migrations", "django_content_type", "auth_permission"}  # rows that tests find and leave


def make(name: str, *, keep: bool = False) -> None:
    """There is a database of that name as migrations make it; with `keep`, one that is there already may have rows."""
    template = _PREFIX + _digest()
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])  # the processes of a run come at the same time
        if keep and _copied_from(cursor, name) == template:
            return
        _migrate_once(cursor, template)
        _drop(cursor, name)
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE {template}')
        for setting, value in QUICK.items():
            cursor.execute(f'ALTER DATABASE "{name}" SET {setting} = {value}')
        cursor.execute(f"COMMENT ON DATABASE \"{name}\" IS '{template}'")


@contextmanager
def cluster(url: str) -> Iterator[None]:
    """Models in this process mean this database of a cluster, whose tables are placed. It is kept."""
    place = {"PORT": "", "USER": "", "PASSWORD": "", "HOST": "", **environ.Env.db_url_config(url)}
    with read(place):
        call_command("migrate", verbosity=0)
        call_command("distribute", verbosity=0)
        empty()
        yield


def fill(database: Mapping[str, Any]) -> None:
    """This empty database, which may be on another server, is as migrations make it. It is copied by dump and restore,
    which takes a second where migrating takes ten."""
    template = {**connection.settings_dict, "NAME": _PREFIX + _digest()}
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        _migrate_once(cursor, template["NAME"])
        dump = _run("pg_dump", database=template)
    _run("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", database=database, given=dump)


def _run(program: str, *arguments: str, database: Mapping[str, Any], given: bytes = b"") -> bytes:
    """Run one of the programs that come with the embedded server; what it answered."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    path = f"{(spec.submodule_search_locations or [''])[0]}/{EDITION}/bin/{program}"
    names = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
    variables = {variable: str(database[name]) for name, variable in names.items() if database[name]}
    answer = subprocess.run([path, *arguments], env=variables, input=given, stdout=subprocess.PIPE, check=True)
    return answer.stdout


def drop(name: str) -> None:
    """There is no database of that name, and nobody is connected to it."""
    with connection._nodb_cursor() as cursor:
        _drop(cursor, name)


def _drop(cursor: Any, name: str) -> None:
    """FORCE ends whoever is connected, but may not end an autovacuum worker; without FORCE PostgreSQL itself does."""
    try:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    except ProgrammingError:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')


@contextmanager
def read(database: Mapping[str, Any]) -> Iterator[None]:
    """Models in this process, whatever the thread, mean this database."""
    connection.close()
    before = dict(connection.settings_dict)
    connection.settings_dict.update({name: database[name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")})
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(before)


def empty() -> None:
    """Every table is as migrations left it. Only those that have rows are touched, so that it takes a moment."""
    with transaction.atomic(), connection.cursor() as cursor:
        if is_cluster():  # tables are asked and emptied one by one, as it takes them
            cursor.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
            full = [table for table in _tables() if _has_rows(cursor, table)]
            for table in [*full, "media_removals"]:
                cursor.execute(f'DELETE FROM "{table}"')
            return
        cursor.execute(_which_have_rows())
        if full := [table for (table,) in cursor.fetchall()]:
            # Last, since a trigger writes it.
            cursor.execute("; ".join(f'DELETE FROM "{table}"' for table in [*full, "media_removals"]))


def _has_rows(cursor: Any, table: str) -> bool:
    cursor.execute(f'SELECT 1 FROM "{table}" LIMIT 1')
    return bool(cursor.fetchall())


@cache
def _tables() -> Sequence[str]:
    return sorted(set(connection.introspection.table_names()) - OF_MIGRATIONS - {"citus_tables", "citus_schemas"})


@cache
def _which_have_rows() -> str:
    return " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM \"{table}\")" for table in _tables())


def _migrate_once(cursor: Any, template: str) -> None:
    """The template is there, and none of earlier migrations."""
    cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{_PREFIX}%"])
    there = {name for (name,) in cursor.fetchall()}
    if template in there:
        return
    for old in there:
        _drop(cursor, old)
    unfinished = f"{template}_unfinished"
    cursor.execute(f"CREATE DATABASE {unfinished}")
    with read({**connection.settings_dict, "NAME": unfinished}):
        call_command("migrate", verbosity=0)
    cursor.execute(f"ALTER DATABASE {unfinished} RENAME TO {template}")


@cache
def _digest() -> str:
    """It changes with the migrations and with what they call."""
    patterns = ("*/migrations/*.py", "*/models/*.py", "*/models.py")
    sources = sorted(path for pattern in patterns for path in settings.BASE_DIR.glob(pattern))
    told = [version("django"), version("django-q2"), settings.COPILOT_ROLE]
    parts = [*map(str.encode, told), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _copied_from(cursor: Any, name: str) -> str | None:
    cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name])
    found = cursor.fetchone()
    return found[0] if found else None
