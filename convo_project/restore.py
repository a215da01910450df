"""`manage.py restore`: a backup becomes a running Convo again, in an empty home and an empty database.

    check the backup ─► the home and database are empty ─► note that a restore began ─► keys ─► files ─►
    database (one transaction) ─► the note goes

A restore that dies leaves the note. No other command starts such a home; the same restore can be run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conversations import earlier
from convo_project import backup_format, embedded_postgres, env, pg_tools
from convo_project.backup_format import DUMP, FILES, KEYS, SECRETS, Manifest
from convo_project.home import QUICKSTART, RESTORING, CannotStartError, claim, try_lock, write_private
from convo_project.terminal import done, say

_TABLES = """
    SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="manage.py restore",
        description="Restore a backup into an empty CONVO_HOME, and into its embedded database or an empty one that "
        "DATABASE_URL names. Nothing that exists is replaced.",
    )
    parser.add_argument("folder", type=Path, help="The folder that manage.py backup wrote")
    parser.add_argument("--dry-run", action="store_true", help="Check the backup and the place, and change nothing")
    return parser.parse_args(given)


def restore(options: argparse.Namespace) -> None:
    """Restore the backup, or say what would be done. Raises CannotStartError with what hinders it."""
    folder: Path = options.folder.expanduser().resolve()
    manifest = backup_format.read(folder)
    done(f"the backup is whole (of {manifest.began_at}, Convo {manifest.version})")
    _refuse_newer(manifest)
    keys = _keys(folder)
    home = env.home()
    _refuse_data(home)
    os.environ |= keys
    if options.dry_run:
        _dry_run(home, manifest)
        return
    claim(home)
    lock = try_lock(home / "restore.lock")
    if lock is None:
        raise CannotStartError(f"Another restore into {home} is under way.")
    try:
        _restore(home, folder, manifest, keys)
    except OSError as problem:
        raise CannotStartError(f"The restore failed: {problem.strerror or problem}. Run it again.") from None
    finally:
        os.close(lock)
    for sentence in manifest.missing:
        say(sentence)
    goes_on = "Start it with 'make up', or migrate and start the processes."
    if _is_earlier(manifest):
        goes_on = "It is of Convo 0.1 or 0.2: copy it into a new database with manage.py import_database."
    say(f"The backup of {manifest.began_at} is restored. {goes_on}")


def _restore(home: Path, folder: Path, manifest: Manifest, keys: dict[str, str]) -> None:
    embedded = not env.text("DATABASE_URL")
    if embedded and (home / RESTORING).exists():
        (home / QUICKSTART).unlink(missing_ok=True)
        embedded_postgres.discard(home)  # of an earlier try: the home had no data before it
    if not embedded:
        _check_database(_database(), manifest)
    write_private(home / RESTORING, f"{folder}\n")
    write_private(home / "secrets.env", "".join(f"{name}={value}\n" for name, value in keys.items()))
    done("keys")
    with _running(home, embedded):
        _copy_files(folder)
        database = _database()
        _check_database(database, manifest)
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--verbose", f"--dbname={database['NAME']}")
        pg_tools.run(
            *("pg_restore", *options, str(folder / DUMP)),
            database=database,
            progress=lambda table: say(f"  {table}"),
            text="processing data for table ",
        )
        with pg_tools.connect(database) as connection:
            connection.execute("ANALYZE")
        done("database")
    if (folder / QUICKSTART).exists():
        write_private(home / QUICKSTART, (folder / QUICKSTART).read_text())
    (home / RESTORING).unlink()


@contextmanager
def _running(home: Path, embedded: bool) -> Iterator[None]:
    if not embedded:
        yield
        return
    with embedded_postgres.running(home):
        yield


def _copy_files(folder: Path) -> None:
    from django.conf import settings

    if (folder / FILES).is_dir():
        if not settings.MEDIA_ROOT:
            raise CannotStartError("The backup has kept files, and this version of Convo keeps none.")
        shutil.copytree(folder / FILES, settings.MEDIA_ROOT, symlinks=True, dirs_exist_ok=True)
        done(f"kept files ({settings.MEDIA_ROOT})")


def _dry_run(home: Path, manifest: Manifest) -> None:
    where = f"the embedded PostgreSQL of {home}"
    if env.text("DATABASE_URL"):
        database = _database()
        _check_database(database, manifest)
        where = f"the database {database['NAME']} that DATABASE_URL names"
    size = sum(int(size) for size, _ in manifest.files.values())
    say(f"Would restore {len(manifest.files)} files, {size:,} bytes, into {home} and {where}. Nothing was changed.")
    for sentence in manifest.missing:
        say(sentence)


def _database() -> dict[str, Any]:
    """Return the database of Django's settings."""
    from django.conf import settings

    database: dict[str, Any] = settings.DATABASES["default"]
    return database


def _keys(folder: Path) -> dict[str, str]:
    """Return the backup's keys. Raises CannotStartError if the environment has others."""
    keys = backup_format.keys_of(folder)
    for name in KEYS:
        if env.text(name) and env.text(name) != keys.get(name, ""):
            raise CannotStartError(
                f"{name} is set to something else than in the backup, with which its data could not be read. "
                "Unset it, also in .env, or set it as the backup's secrets.env has it."
            )
    if not backup_format.is_private(folder / SECRETS):
        say(f"Others can read {folder}. Make it private: chmod -R go= {folder}")
    return keys


def _refuse_newer(manifest: Manifest) -> None:
    """Raise CannotStartError if a newer version of Convo made the backup: one of its migrations is not here."""
    if _is_earlier(manifest):
        return  # its migrations were numbered before those of today
    for app in ("conversations", "memory"):
        here = max(int(path.name[:4]) for path in (env.PROJECT / app / "migrations").glob("[0-9]*.py"))
        theirs = [name.partition(".")[2] for name in manifest.migrations if name.startswith(f"{app}.")]
        if max((int(name[:4]) for name in theirs if name[:4].isdigit()), default=0) > here:
            raise CannotStartError(
                f"Convo {manifest.version} made the backup, which is newer than this. Update the code, then restore."
            )


def _is_earlier(manifest: Manifest) -> bool:
    """Return whether the backup is of a database of Convo 0.1 or 0.2."""
    return any(f"conversations.{name}" in manifest.migrations for name in earlier.MIGRATIONS)


def _refuse_data(home: Path) -> None:
    """Raise CannotStartError if the home holds data, other than those of an earlier try to restore."""
    if (home / RESTORING).exists():
        return
    signs = [home / QUICKSTART, home / "secrets.env", home / "postgres" / "passwords.json", home / "postgres" / "data"]
    if found := next((sign for sign in signs if sign.exists()), None):
        raise CannotStartError(
            f"CONVO_HOME {home} holds data ({found.name}). Restore into an empty home: set CONVO_HOME to a new folder."
        )


def _check_database(database: dict[str, Any], manifest: Manifest) -> None:
    """Raise CannotStartError if the database holds tables, or lacks the copilot's role."""
    with pg_tools.connect(database) as connection:
        tables = (connection.execute(_TABLES).fetchone() or (0,))[0]
        has_role = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [manifest.copilot_role]).fetchone()
    if tables:
        raise CannotStartError(
            f"The database {database['NAME']} holds {tables} tables. Restore into an empty one: nothing is replaced. "
            "If an earlier try filled it and then died, drop it and create it again."
        )
    if has_role is None:
        raise CannotStartError(
            f"The database's server has no role {manifest.copilot_role}, which the backup's rules name. "
            f"A superuser must run: CREATE ROLE {manifest.copilot_role} NOLOGIN; and grant it to Convo's role."
        )
