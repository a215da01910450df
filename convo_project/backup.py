"""`manage.py backup`: a copy of the database, the keys and the kept files, while Convo runs."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from convo_project import backup_format, env, pg_tools
from convo_project.backup_format import DUMP, FILES, KEYS, SECRETS, Manifest
from convo_project.home import QUICKSTART, CannotStartError, try_lock, write_private
from convo_project.terminal import done, say

# Variables that belong to a place, and not to what a restored Convo needs.
OF_A_PLACE = {"CONVO_HOME", "DATABASE_URL", "HOST", "PORT", "BENCH", "DEBUG", "LOG_LEVEL", *KEYS}


def arguments(given: list[str]) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="manage.py backup",
        description="Copy the database, the keys and the kept files to a private folder. Convo may run meanwhile: "
        "everything that was committed before the backup began is in it.",
    )
    parser.add_argument("--to", type=Path, help="The new folder (default: one named by the time in CONVO_HOME/backups)")
    return parser.parse_args(given)


def back_up(options: argparse.Namespace) -> None:
    """Write the backup. Its folder is complete or is not there. Raises CannotStartError."""
    began_at = datetime.now(UTC)
    home = env.home()
    target: Path = (options.to or home / "backups" / f"{began_at:%Y%m%dT%H%M%SZ}").expanduser().resolve()
    if target.exists():
        raise CannotStartError(f"{target} exists. Name a new folder: a backup replaces nothing.")
    part = target.with_name(f".{target.name}.part")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(target.with_name(f".{target.name}.lock"))
        if lock is None:
            raise CannotStartError(f"Another backup to {target} is being made.")
        try:
            _write(part, began_at)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            target.with_name(f".{target.name}.lock").unlink(missing_ok=True)
            os.close(lock)
    except OSError as problem:
        raise CannotStartError(f"The backup cannot be written: {problem.strerror or problem}.") from None
    say(f"The backup is in {target}. Whoever has it can read everything: keep it as you keep passwords.")


def _write(part: Path, began_at: datetime) -> None:
    from django.conf import settings

    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    database: dict[str, Any] = settings.DATABASES["default"]
    migrations = _migrations(database)
    _dump(database, part / DUMP)
    done("database")
    write_private(part / SECRETS, "".join(f"{name}={value}\n" for name, value in _keys().items()))
    done("keys")
    missing = _copy_files(part)
    if (env.home() / QUICKSTART).exists():
        shutil.copyfile(env.home() / QUICKSTART, part / QUICKSTART)
    if elsewhere := _settings_elsewhere():
        missing.append(f"Settings are not in the backup. Keep the values of: {', '.join(elsewhere)}.")
    for sentence in missing:
        say(sentence)
    manifest = Manifest(
        began_at=began_at.isoformat(),
        version=settings.VERSION,
        copilot_role=settings.COPILOT_ROLE,
        migrations=migrations,
        files=backup_format.describe(part),
        missing=missing,
    )
    backup_format.write(part, manifest)


def _migrations(database: dict[str, Any]) -> list[str]:
    """Return the migrations that are applied, as "app.name". Raises CannotStartError if there are none."""
    with pg_tools.connect(database) as connection:
        if connection.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
            raise CannotStartError(f"The database {database['NAME']} has no tables of Convo: there is nothing to copy.")
        found = connection.execute("SELECT app || '.' || name FROM django_migrations ORDER BY 1").fetchall()
    return [name for (name,) in found]


def _dump(database: dict[str, Any], file: Path) -> None:
    options = ("--format=custom", "--no-owner", "--verbose", "--lock-wait-timeout=60000", f"--file={file}")
    pg_tools.run(
        *("pg_dump", *options),
        database=database,
        progress=lambda table: say(f"  {table}"),
        text="dumping contents of table ",
    )


def _keys() -> dict[str, str]:
    """Return the keys that this process uses, by their variables."""
    return {name: value for name in KEYS if (value := env.text(name))}


def _copy_files(part: Path) -> list[str]:
    """Copy what Django's storage keeps, and return a sentence if it cannot be copied."""
    from django.conf import settings

    backend = settings.STORAGES["default"]["BACKEND"]
    if not backend.endswith(".FileSystemStorage"):
        return [f"Kept files are not in the backup: {backend} keeps them. Back them up there."]
    kept = Path(settings.MEDIA_ROOT) if settings.MEDIA_ROOT else None
    if kept and kept.is_dir():
        copy_files(kept, part / FILES)
        done(f"kept files ({kept})")
    return []


def copy_files(kept: Path, to: Path) -> None:
    """Copy the files below the folder. One that is deleted meanwhile is left out."""
    for folder, _, names in os.walk(kept):
        here = to / Path(folder).relative_to(kept)
        here.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            with suppress(FileNotFoundError):
                shutil.copy2(Path(folder) / name, here / name, follow_symlinks=False)


def _settings_elsewhere() -> list[str]:
    """Return the variables of `.env.example` that are set and that a restored Convo will need."""
    known = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (env.PROJECT / ".env.example").read_text(), re.MULTILINE))
    return sorted(name for name in known - OF_A_PLACE if env.text(name))
