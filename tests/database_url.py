"""The address of a test's database, for a process that is told of it by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def url_of(database: Mapping[str, Any]) -> str:
    """The database of Django's settings as DATABASE_URL has it."""
    who = quote(database["USER"], safe="") + (
        f":{quote(password, safe='')}" if (password := database["PASSWORD"]) else ""
    )
    host, port = database["HOST"] or "", database["PORT"] or 5432
    place = f":{port}/{quote(host)}" if host.startswith("/") else f"{host}:{port}"
    return f"postgres://{who}@{place}/{database['NAME']}"
