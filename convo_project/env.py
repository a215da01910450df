"""Reads the environment. Invalid values raise ImproperlyConfigured with a sentence that names the variable.

Sources in order of precedence: the process's environment, `.env` beside `manage.py`, `CONVO_HOME/secrets.env` (written
once by `make up`).
"""

from __future__ import annotations

import ipaddress
import os
import re
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

PROJECT = Path(__file__).resolve().parent.parent

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def home() -> Path:
    """Return Convo's own folder: `CONVO_HOME`, or `.convo` beside `manage.py`. It may not exist yet."""
    return Path(os.environ.get("CONVO_HOME") or PROJECT / ".convo").expanduser().resolve()


def load_files() -> None:
    """Load `.env` and `CONVO_HOME/secrets.env` into the environment, without replacing variables that are set."""
    _load(PROJECT / ".env")
    _load(home() / "secrets.env")  # after .env, which may set CONVO_HOME


def _load(path: Path) -> None:
    if path.is_file():
        environ.Env.read_env(path, overwrite=False)


def text(name: str, default: str = "") -> str:
    """Return the variable without surrounding blanks."""
    return os.environ.get(name, default).strip()


def required(name: str, what_to_do: str) -> str:
    """Return the variable. Raises ImproperlyConfigured with `what_to_do` if it is empty."""
    value = text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. {what_to_do}")
    return value


def name(variable: str, default: str) -> str:
    """Return the variable as a name in PostgreSQL: lower-case letters, digits and underscores."""
    value = text(variable) or default
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        raise ImproperlyConfigured(f"{variable} must be lower-case letters, digits and underscores, not {value!r}.")
    return value


def whole(name: str, default: int, *, least: int = 0, most: int = 1_000_000_000, earlier: str = "") -> int:
    """Return the variable as a whole number within its bounds. `earlier` is its old name, read if it is not set."""
    if earlier and text(earlier) and not text(name):
        name = earlier
    raw = text(name) or str(default)
    try:
        number = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {raw!r}.") from None
    if not least <= number <= most:
        raise ImproperlyConfigured(f"{name} must lie between {least} and {most}, not {number}.")
    return number


def seconds(name: str, default: float, *, least: float = 0.0, most: float = 86_400.0) -> float:
    """Return the variable as a number of seconds within its bounds."""
    raw = text(name) or str(default)
    try:
        number = float(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number of seconds, not {raw!r}.") from None
    if not least <= number <= most:
        raise ImproperlyConfigured(f"{name} must lie between {least:g} and {most:g} seconds, not {number:g}.")
    return number


def yes(name: str, default: bool = False) -> bool:
    """Return the variable as a boolean: 1, true, yes, on or 0, false, no, off."""
    raw = text(name, str(default)).lower()
    if raw not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} must be true or false, not {raw!r}.")
    return raw in TRUE


def words(name: str, default: str = "") -> list[str]:
    """Return the variable as a list, separated by commas."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def prices(name: str) -> dict[str, tuple[str, ...]]:
    """Return the variable as prices by model: for tokens in, out and, if given, in from a cache.

    It is written such as `gpt-6-luna=0.10/0.50/0.01, llama=0/0`.
    """
    found = {}
    for word in words(name):
        model, _, price = word.partition("=")
        figures = tuple(figure.strip() for figure in price.split("/"))
        try:
            fine = model.strip() and len(figures) in (2, 3) and all(0 <= Decimal(each) < 1_000_000 for each in figures)
        except ArithmeticError:
            fine = False
        if not fine:
            raise ImproperlyConfigured(f"{name} must be like gpt-6-luna=0.10/0.50/0.01, not {word!r}.")
        found[model.strip()] = figures
    return found


def networks(name: str) -> list[str]:
    """Return the variable as a list of IP networks, separated by commas."""
    found = words(name)
    for written in found:
        try:
            ipaddress.ip_network(written)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must list networks such as 10.0.0.0/8, not {written!r}.") from None
    return found


def url(name: str, default: str = "") -> str:
    """Return the variable as an http or https address without a trailing slash, or '' if it is empty."""
    raw = text(name) or default
    if not raw:
        return ""
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ImproperlyConfigured(f"{name} must be an http:// or https:// address, not {raw!r}.")
    return raw.rstrip("/")


def choice(name: str, default: str, allowed: set[str]) -> str:
    """Return the variable in upper case. It must be one of `allowed`."""
    raw = (text(name) or default).upper()
    if raw not in allowed:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(sorted(allowed))}, not {raw!r}.")
    return raw
