"""The files of a backup: a private folder with a manifest that lists the others.

manifest.json     what is in the backup: version, time, migrations, each file's size and SHA-256, what is missing
database.dump     the database, as pg_dump's custom format has it
secrets.env       the keys with which stored credentials are read
quickstart.json   the first passwords and API key, if the home has them
files/            what Django's storage keeps, if that is a folder
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from convo_project.home import CannotStartError, write_private

FORMAT = 1
MANIFEST, DUMP, SECRETS, FILES = "manifest.json", "database.dump", "secrets.env", "files"
KEYS = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "CREDENTIALS_KEYS")
PIECE = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What is in a backup. `began_at` is ISO 8601: what was committed before is in it."""

    began_at: str
    version: str
    copilot_role: str
    migrations: list[str]
    files: dict[str, list[int | str]] = field(default_factory=dict)  # size in bytes and SHA-256, by relative path
    missing: list[str] = field(default_factory=list)  # sentences
    format: int = FORMAT


def describe(folder: Path) -> dict[str, list[int | str]]:
    """Return size and SHA-256 of every file below the folder, but the manifest, and make each private."""
    found: dict[str, list[int | str]] = {}
    for path in sorted(folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if path.is_file() and path != folder / MANIFEST:
            found[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest(path)]
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest."""
    write_private(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")


def read(folder: Path) -> Manifest:
    """Return the manifest, whose files are there and unchanged. Raises CannotStartError with what is wrong."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        if found.get("format") != FORMAT:
            raise CannotStartError(f"{folder} has a format that this version of Convo does not know.")
        manifest = Manifest(**found)
    except OSError as problem:
        raise CannotStartError(f"{folder} is no backup: {MANIFEST} cannot be read ({problem.strerror}).") from None
    except (ValueError, TypeError, AttributeError):
        raise CannotStartError(f"{folder} is no backup: {MANIFEST} is damaged.") from None
    for name, (size, sha256) in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise CannotStartError(f"The backup is incomplete: {name} is missing.")
        if path.stat().st_size != size or digest(path) != sha256:
            raise CannotStartError(f"The backup is damaged: {name} is not as it was written.")
    for name in (DUMP, SECRETS):
        if name not in manifest.files:
            raise CannotStartError(f"The backup is incomplete: {name} is missing.")
    return manifest


def keys_of(folder: Path) -> dict[str, str]:
    """Return the keys of the backup by their variables."""
    lines = (line.partition("=") for line in (folder / SECRETS).read_text().splitlines())
    return {name: value for name, _, value in lines if name in KEYS}


def is_private(path: Path) -> bool:
    """Return whether only the owner can read the file or folder."""
    return not os.stat(path).st_mode & 0o077
