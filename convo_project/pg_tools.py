"""PostgreSQL's own programs for backups, pg_dump and pg_restore, against Convo's database."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_project.home import CannotStartError
from convo_project.postgres_place import EDITION, PACKAGE

if TYPE_CHECKING:
    import psycopg

VARIABLES = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
OPTIONS = {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}
ENCRYPTED = ("require", "verify-ca", "verify-full")
Progress = Callable[[str], None]


def program(name: str, database: dict[str, Any]) -> str:
    """Return the path of a program: the newest of the embedded server's own and the one on the PATH.

    An older one reads neither a newer server nor what a newer one wrote. The embedded server's own know no TLS, and are
    left out where the database's settings demand it. Raises CannotStartError if there is none.
    """
    found = [path] if (path := shutil.which(name)) else []
    spec = find_spec(PACKAGE)
    if spec and spec.submodule_search_locations and database.get("OPTIONS", {}).get("sslmode") not in ENCRYPTED:
        own = Path(spec.submodule_search_locations[0]) / EDITION / "bin" / name
        found = [*([str(own)] if own.exists() else []), *found]
    if not found:
        raise CannotStartError(f"There is no {name} on this machine. Install PostgreSQL's client programs.")
    return max(found, key=_version)


def _version(path: str) -> int:
    """Return the major version of a program, 0 if it does not run."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    number = re.search(r"(\d+)", said)
    return int(number[1]) if number else 0


def run(name: str, *arguments: str, database: dict[str, Any], progress: Progress, text: str = "") -> None:
    """Run a program against the database of Django's settings.

    progress: called with each table that the program names as it begins with it
    text: what a line says before the table

    Raises CannotStartError with the program's last lines if it fails.
    """
    variables = {VARIABLES[key]: str(value) for key, value in database.items() if key in VARIABLES and value}
    variables |= {OPTIONS[key]: str(value) for key, value in database.get("OPTIONS", {}).items() if key in OPTIONS}
    process = subprocess.Popen(
        [program(name, database), *arguments],
        env={"PATH": os.defpath, "LC_ALL": "C", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
    )
    said: list[str] = []
    try:
        for line in process.stderr or ():
            _, found, table = line.strip().partition(text)
            if text and found:
                progress(table.strip().strip('"'))
            else:
                said = [*said, line.strip()][-3:]
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise CannotStartError(f"{name} failed: {' / '.join(said)}")


def connect(database: dict[str, Any]) -> psycopg.Connection[Any]:
    """Return a connection to the database of Django's settings. Raises CannotStartError."""
    import psycopg

    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    values = {parameter: database[key] for key, parameter in names.items() if database.get(key)}
    values |= {key: value for key, value in database.get("OPTIONS", {}).items() if key in OPTIONS}
    try:
        return psycopg.connect(**values, connect_timeout=10, autocommit=True)
    except psycopg.OperationalError as problem:
        raise CannotStartError(f"The database cannot be reached: {str(problem).splitlines()[0]}") from None
