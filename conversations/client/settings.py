"""Settings from the environment. Convo's own variable names go before those of the agents that it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigurationError

API_PATH = "/api/v1"
YES, NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Settings:
    """The settings of the client library.

    Arguments:
        api_url: Convo's address, with or without `/api/v1`.
        api_key: an API key of the client.
        timeout: seconds that a call takes at most, with all its attempts.
        enabled: False makes every tracking call do nothing.
        outbox_path: the SQLite file with the changes that are not delivered yet.
        outbox_limit: the number of entries that it takes.
    """

    api_url: str
    api_key: str
    timeout: float = 10.0
    enabled: bool = True
    outbox_path: Path = Path(".convo_outbox/outbox.sqlite3")
    outbox_limit: int = 10_000

    def __post_init__(self) -> None:
        parts = urlsplit(self.api_url)
        if self.enabled and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise ConfigurationError("CONVO_API_URL must be Convo's address, such as http://127.0.0.1:8000.")
        if self.enabled and not self.api_key:
            raise ConfigurationError("CONVO_API_KEY is not set: `manage.py create_api_key` makes a key.")
        if not 0 < self.timeout <= 600:
            raise ConfigurationError("CONVO_API_TIMEOUT must be a number of seconds, more than 0 and at most 600.")
        if self.outbox_limit < 1:
            raise ConfigurationError("CONVO_OUTBOX_LIMIT must be at least 1.")

    @property
    def base_url(self) -> str:
        """Return the API's address, ending in `/api/v1`."""
        url = self.api_url.rstrip("/")
        return url if url.endswith(API_PATH) else url + API_PATH

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings from the environment.

        The variables are `CONVO_API_URL` (or `CARTAAI_API_BASE_URL`), `CONVO_API_KEY` (or `CARTAAI_API_KEY`),
        `CONVO_API_TIMEOUT` in seconds (or `CONVERSATION_API_TIMEOUT`), `ENABLE_CONVERSATION_SYNC`, `CONVO_OUTBOX_PATH`
        and `CONVO_OUTBOX_LIMIT`. Raises ConfigurationError, which names the variable.
        """
        return cls(
            api_url=_first(environ, "CONVO_API_URL", "CARTAAI_API_BASE_URL"),
            api_key=_first(environ, "CONVO_API_KEY", "CARTAAI_API_KEY"),
            timeout=_number(environ, "10", "CONVO_API_TIMEOUT", "CONVERSATION_API_TIMEOUT"),
            enabled=_yes(environ, "ENABLE_CONVERSATION_SYNC"),
            outbox_path=Path(environ.get("CONVO_OUTBOX_PATH") or cls.outbox_path),
            outbox_limit=int(_number(environ, str(cls.outbox_limit), "CONVO_OUTBOX_LIMIT")),
        )


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), "")


def _number(environ: Mapping[str, str], default: str, *names: str) -> float:
    try:
        return float(_first(environ, *names) or default)
    except ValueError:
        raise ConfigurationError(f"{names[0]} must be a number.") from None


def _yes(environ: Mapping[str, str], name: str) -> bool:
    said = environ.get(name, "").strip().lower() or "true"
    if said not in YES | NO:
        raise ConfigurationError(f"{name} must be true or false.")
    return said in YES
