"""The record of a home's embedded PostgreSQL: its passwords, and where its data are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convo_project.home import QUICKSTART, CannotStartError, write_private
from convo_project.postgres_place import Place


def path_of(place: Place) -> Path:
    """Return the file of the record."""
    return place.own / "passwords.json"


def read(place: Place) -> dict[str, Any]:
    """Return the record. Raises OSError if there is none."""
    record: dict[str, Any] = json.loads(path_of(place).read_text())
    return record


def write(place: Place, record: dict[str, Any], *, complete: bool = True) -> None:
    """Write the record, with where the data are; also as a line for people, if that is not in the home.

    complete: the data folder has been made, so that its absence means that it was lost
    """
    where = {"home": str(place.home), "base": str(place.base), "complete": complete}
    write_private(path_of(place), json.dumps({**record, **where}))
    if place.account:
        write_private(place.own / "data-folder.txt", f"{place.data}\n")


def refuse_if_data_are_missing(place: Place) -> None:
    """Raise CannotStartError if the home had a database which is gone: an empty one in its place would hide that."""
    if place.data.exists():
        return
    record = read(place) if path_of(place).exists() else {}
    is_half_made = record and not record.get("complete", True)
    if is_half_made or not (record or (place.home / QUICKSTART).exists()):
        return
    data = Path(record.get("base", place.base)) / "data"
    why = f"belongs to {record.get('home')}, of which this is a copy" if data.exists() else "is not there"
    raise CannotStartError(
        f"CONVO_HOME {place.home} has had a database, whose folder {data} {why}. Put the folder back; or restore a "
        "backup into an empty CONVO_HOME (manage.py restore); or set DATABASE_URL, if the data are elsewhere. "
        f"To begin anew without the data, delete {place.own} and {place.home / QUICKSTART}."
    )
