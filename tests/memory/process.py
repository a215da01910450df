"""Another process that remembers or forgets: `python -m tests.memory.process`, with (verb, argument) pickled on its
standard input. It is told by its environment where the database and the providers are."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

from tests.database_url import url_of

SETTINGS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "PINECONE_API_KEY", "PINECONE_HOST")


def start(verb: str, argument: Any, settings: Any) -> subprocess.Popen[bytes]:
    """A process that does it, on the test's database and with the test's fakes."""
    told = {name: getattr(settings, name) for name in SETTINGS}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.memory.process"],
        stdin=subprocess.PIPE,
        env={**os.environ, **told, "DATABASE_URL": url_of(settings.DATABASES["default"])},
    )
    assert process.stdin
    process.stdin.write(pickle.dumps((verb, argument)))
    process.stdin.close()
    return process


def main() -> None:
    """Do it."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "convo_project.settings"
    django.setup()
    from memory import services

    verb, argument = pickle.load(sys.stdin.buffer)  # noqa: S301
    getattr(services, verb)(argument)


if __name__ == "__main__":
    main()
