"""Refuses a database on which nothing may run: one of Convo 0.1 or 0.2, or one whose import has not ended."""

from __future__ import annotations

import os
from typing import Any

import psycopg
from psycopg import sql

from conversations import earlier
from convo_project import env, pg_tools
from convo_project.home import CannotStartError

IMPORTING = "manage.py import_database has not ended"
_NOTE = "SELECT 1 FROM pg_class WHERE oid = to_regclass('clients') AND obj_description(oid, 'pg_class') = %s"
OURS = env.PROJECT / "conversations" / "management" / "commands"


def refuse(*, to_import: bool = False) -> None:
    """Raise CannotStartError if Django's settings name such a database. One that cannot be reached is not refused.

    to_import: an import that has not ended is no hindrance, since it goes on
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    from django.conf import settings

    try:
        connection = pg_tools.connect(settings.DATABASES["default"])
    except CannotStartError:
        return
    with connection:
        if _is_earlier(connection):
            raise CannotStartError(earlier.REFUSAL)
        if not to_import and connection.execute(_NOTE, [IMPORTING]).fetchone():
            raise CannotStartError(
                "An import into this database did not end. Run manage.py import_database again; or begin with a new "
                "database."
            )


def note_import(connection: psycopg.Connection[Any], *, ended: bool) -> None:
    """Write into the database that an import began, or that it ended."""
    note = sql.NULL if ended else sql.Literal(IMPORTING)
    connection.execute(sql.SQL("COMMENT ON TABLE clients IS {}").format(note))


def _is_earlier(connection: psycopg.Connection[Any]) -> bool:
    if connection.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
        return False
    return connection.execute(earlier.FIND.format("%s"), [earlier.MIGRATIONS]).fetchone() is not None


def concerns(command: str) -> bool:
    """Return whether a management command works on Convo's tables."""
    return command in {"migrate", "qcluster"} or (OURS / f"{command}.py").is_file()
