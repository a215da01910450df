"""Another process that remembers or forgets, forked from one that has loaded Django and the SDKs and does nothing else.

It is told where the database and the providers are, as the settings of this process have it.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess
from typing import Any

SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "PINECONE_API_KEY", "PINECONE_HOST")
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.memory.loaded"])


def start(verb: str, *arguments: Any, settings: Any) -> BaseProcess:
    """Start a process on the test's database and with the test's fakes; the caller joins it."""
    told = {name: getattr(settings, name) for name in SETTINGS}
    database = {name: settings.DATABASES["default"][name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    process = _server.Process(target=_do, args=(verb, arguments, told, database), daemon=True)
    process.start()
    return process


def _do(verb: str, arguments: tuple[Any, ...], told: dict[str, Any], database: dict[str, Any]) -> None:
    from django.conf import settings
    from django.db import connection

    from memory import services
    from memory.language_models import choosing
    from tests.memory.conftest import by_settings

    for name, value in told.items():
        setattr(settings, name, value)
    choosing.register(by_settings, lambda _access, _facts: None)
    connection.settings_dict.update(database)
    getattr(services, verb)(*arguments)
