"""The languages of the back office: English, and one for each folder of `locale/`.

A folder has the catalogues that translators edit (`LC_MESSAGES/*.po`). Django reads them compiled (`*.mo`). They are
compiled when Convo starts, where they are missing or older, and when an image is built (`make compile`). Babel does it,
since few machines have gettext.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from django.conf.locale import LANG_INFO

FOLDER = Path(__file__).resolve().parent.parent / "locale"
NAMES = {"es": "Español", "pt-br": "Português"}  # where Django's name is not the one to show


def found(folder: Path = FOLDER) -> list[tuple[str, str]]:
    """Return the codes and names of the languages, English first."""
    codes = sorted(each.parent.parent.name.lower().replace("_", "-") for each in folder.glob("*/LC_MESSAGES/django.po"))
    return [("en", "English"), *((code, _name(code)) for code in codes)]


def compile_stale(folder: Path = FOLDER) -> list[Path]:
    """Compile the catalogues that changed, and return those that could not be written (a directory that is read-only).

    Raises babel's PoFileError for a catalogue that is broken.
    """
    return [path for path in _stale(folder) if not _compile(path)]


def version(folder: Path = FOLDER) -> int:
    """Return a number that changes with the catalogues, for addresses that browsers may keep."""
    return max((int(path.stat().st_mtime) for path in folder.glob("*/LC_MESSAGES/*.po")), default=0)


def _name(code: str) -> str:
    return NAMES.get(code) or str(LANG_INFO.get(code, {}).get("name_local", code))


def _stale(folder: Path) -> list[Path]:
    """Return the catalogues whose compiled form is missing or older."""
    paths = sorted(folder.glob("*/LC_MESSAGES/*.po"))
    return [path for path in paths if _time(path.with_suffix(".mo")) < path.stat().st_mtime]


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _compile(path: Path) -> bool:
    """Compile the catalogue, and return whether it could be written. Processes that start at once may all do it."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with path.open("rb") as file:
        catalogue = read_po(file, abort_invalid=True)
    try:
        handle, written = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        return False
    with os.fdopen(handle, "wb") as file:
        write_mo(file, catalogue)
    Path(written).chmod(0o644)
    Path(written).replace(path.with_suffix(".mo"))
    return True


if __name__ == "__main__":
    raise SystemExit("\n".join(f"{path} cannot be compiled" for path in compile_stale()) or 0)
