"""`manage.py import_database`: a database of Convo 0.1 or 0.2, copied into one of this version.

    open the source, one snapshot ─► check both ─► note that an import began ─► table by table, a transaction each ─►
    files of messages ─► quickstart.json ─► the note goes ─► ANALYZE

The source is only read. A copy that dies leaves the note, with which nothing else starts. It can be run again: what is
there stays, the rest follows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from convo_project import backup, env, pg_tools, unfit_database
from convo_project.home import QUICKSTART, CannotStartError, write_private
from convo_project.importing import copying, plan
from convo_project.importing import source as sources
from convo_project.importing.copying import Connection
from convo_project.terminal import done, say

EVENTS = "event_numbering"  # a source without this table is of before there were events
LOCK = 4_713  # an advisory lock: one import at a time

NEW_HOME = (
    "For a new one, make a folder with a copy of the old home's secrets.env, name it as CONVO_HOME, and run manage.py "
    "migrate: that makes no client (make up would make the demo client). Then import again."
)


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="manage.py import_database",
        description="Copy a database of Convo 0.1 or 0.2 into this one, which is migrated and new. The source is only "
        "read. Repeat it after an interruption: it goes on where it was.",
    )
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        help="The source: its address as in DATABASE_URL, or its CONVO_HOME if it has an embedded PostgreSQL",
    )
    parser.add_argument("--dry-run", action="store_true", help="Check both and count the rows; change nothing")
    parser.add_argument(
        "--keys-are-lost",
        action="store_true",
        help="Copy credentials too that CREDENTIALS_KEYS do not decrypt; they must be entered again",
    )
    return parser.parse_args(given)


def import_database(options: argparse.Namespace) -> None:
    """Copy the source, or say what would be copied. Raises CannotStartError with what hinders it."""
    import django

    django.setup()
    try:
        with sources.opened(options.source) as source, _target() as target:
            _import(source, target, options)
    except psycopg.OperationalError as problem:
        raise CannotStartError(
            f"The connection was lost ({problem.sqlstate or 'no answer'}). Tables that are copied stay: run the same "
            "command again."
        ) from None
    except psycopg.Error as problem:
        raise CannotStartError(f"The copy failed ({problem.diag.message_primary or problem}).") from None


def _import(source: Connection, target: Connection, options: argparse.Namespace) -> None:
    sources.check(source)
    there = sources.columns(source)
    _refuse_other_rows(source, target)
    _check_keys(source, there, options)
    found = plan.tables(there)
    for table in found:
        if table.left_behind:
            say(f"Not copied, since this version has no such column: {table.name}.{', '.join(table.left_behind)}")
    if options.dry_run:
        for table in found:
            say(f"  {table.name}: {copying.count(source, table):,} rows")
        say("Nothing was changed.")
        return
    unfit_database.note_import(target, ended=False)
    for group in plan.groups(found):
        copying.copy(source, target, group)
    if EVENTS not in there:
        copying.take_all_as_told(target)
    done("tables")
    _copy_files(source, there, options)
    _keep_quickstart(options)
    unfit_database.note_import(target, ended=True)
    target.execute("ANALYZE")
    say("The database is copied. Start Convo with 'make up', or run setup_schedules and start the processes.")


@contextmanager
def _target() -> Iterator[Connection]:
    """Yield a connection to the database of Django's settings, which is migrated, and which no other import fills."""
    from django.conf import settings

    unfit_database.refuse(to_import=True)
    _refuse_unmigrated()
    with pg_tools.connect(settings.DATABASES["default"]) as connection:
        connection.execute(copying.ALIKE)
        if connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
            raise CannotStartError("Another import into this database is under way.")
        yield connection


def _refuse_unmigrated() -> None:
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    connection.close()
    if missing:
        raise CannotStartError("This database lacks migrations: run manage.py migrate first (not make up).")


def _refuse_other_rows(source: Connection, target: Connection) -> None:
    """Raise CannotStartError if the target has clients or users that the source does not have."""
    for table, name, what in (("clients", "sub_domain", "clients"), ("auth_user", "username", "users")):
        query: Any = f"SELECT id, {name} FROM {table}"
        if others := set(target.execute(query).fetchall()) - set(source.execute(query).fetchall()):
            names = ", ".join(sorted(each for _, each in others)[:3])
            raise CannotStartError(
                f"This database has {what} that are not in the source ({names}), and two installations do not mix. "
                f"Import into a new database. {NEW_HOME}"
            )


def _check_keys(source: Connection, there: plan.Columns, options: argparse.Namespace) -> None:
    """Raise CannotStartError if credentials would be unreadable here, unless they are known to be."""
    from django.conf import settings

    home = sources.home_of(options.source)
    where = f"{home / 'secrets.env'} has them" if home else "those with which the source was run"
    lost = sources.unreadable(source, there, settings.CREDENTIALS_KEYS)
    if lost and not options.keys_are_lost:
        raise CannotStartError(
            f"{lost:,} stored credentials cannot be decrypted with this CREDENTIALS_KEYS. Add the source's keys to it "
            f"({where}), separated by a comma; or copy them as they are with --keys-are-lost, and enter them again."
        )
    if lost:
        say(f"{lost:,} stored credentials cannot be decrypted, and must be entered again.")
    if home and not _knows_secret(home / "secrets.env", [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]):
        say(
            "SECRET_KEY is not the source's: users sign in again, and certificates of erasures are not verified. "
            f"To keep them, add the key of {home / 'secrets.env'} to SECRET_KEY_FALLBACKS."
        )


def _knows_secret(path: Any, known: list[str]) -> bool:
    lines = path.read_text().splitlines() if path.exists() else []
    theirs = [line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith("SECRET_KEY=")]
    return all(each in known for each in theirs)


def _copy_files(source: Connection, there: plan.Columns, options: argparse.Namespace) -> None:
    """Copy the files of messages from the source's home into ours; of an address, say how many are to be copied."""
    from django.conf import settings

    if "attachments" not in there:
        return
    found = source.execute("SELECT count(*) FROM attachments WHERE file <> ''").fetchone()
    if not found or not found[0]:
        return
    home = sources.home_of(options.source)
    if settings.MEDIA_STORAGE != "FILES":
        say(f"{found[0]:,} files of messages are not in the database: keep the source's bucket.")
    elif home:
        backup.copy_files(home / "media", Path(settings.MEDIA_ROOT))
        done(f"files of messages ({settings.MEDIA_ROOT})")
    else:
        say(
            f"{found[0]:,} files of messages are not in the database: copy the folder media of the source's CONVO_HOME "
            f"to {settings.MEDIA_ROOT}."
        )


def _keep_quickstart(options: argparse.Namespace) -> None:
    """Copy the first passwords and API key of the source's home into ours, if it has none."""
    home = sources.home_of(options.source)
    ours = env.home() / QUICKSTART
    if home and (home / QUICKSTART).exists() and not ours.exists() and ours.parent.exists():
        write_private(ours, (home / QUICKSTART).read_text())
        done(f"first passwords and API key ({ours})")
