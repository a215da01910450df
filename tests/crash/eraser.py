"""Erases people, each in a process of its own that kills itself at a step: `python -m tests.crash.eraser`.

A step is what is said to PostgreSQL (but for what only reads: then nothing is different from the step before), a
commit, and what is said to the network; each before it is said, the latter two after they were answered as well. The
process that is asked forks one that does the work, since it takes a second to start anew: it reads an order a line
({"client", "user_id", "step"}; step 0 for none) and answers which step the work died at, or that it is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODULE = "tests.crash.eraser"


# --- who asks ---------------------------------------------------------------------------------------------------------
class Eraser:
    """The process that is asked. All that it and its children write is in `log`."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=variables,
                text=True,
            )

    def erase(self, client: str, user_id: str, step: int = 0) -> str:
        """Where it was killed; '' where it came to its end. Raises AssertionError where it failed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"client": client, "user_id": user_id, "step": step}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["status"] in (0, signal.SIGKILL), f"it failed, after: {answer['step']}"
        return answer["step"] if answer["status"] else ""

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


# --- who does it ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Do what is asked, until nobody asks any more."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "convo_project.settings"
    import django

    django.setup()
    import pinecone.async_client.async_index  # noqa: F401 - once, and not in each child

    from conversations.services.retention import erasure  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        heard, said = os.pipe()
        if (child := os.fork()) == 0:
            os.close(heard)
            os._exit(_obey(order, said))
        os.close(said)
        with os.fdopen(heard) as steps:
            last = steps.read().splitlines()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "step": last[-1] if last else ""}), flush=True)  # noqa: T201


def _obey(order: dict[str, Any], said: int) -> int:
    try:
        os.dup2(2, 1)  # what the command prints is for the log
        with _killed_at(order["step"], said):
            _erase(order["client"], order["user_id"])
    except BaseException:
        import logging

        logging.getLogger().exception("not erased")
        return 1
    return 0


def _erase(client: str, user_id: str) -> None:
    """By the command; what broke off, as the sweep has it go on."""
    from django.core.management import call_command

    from conversations import tasks
    from conversations.models import Contact

    if Contact.objects.filter(client__sub_domain=client, user_id=user_id).exists():
        call_command("erase_contact", client=client, user_id=user_id)
    else:
        tasks.erase()


@contextmanager
def _killed_at(number: int, said: int) -> Iterator[None]:
    """This process is killed at its so many-th step, whose name is told."""
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper

    from channels_out import http
    from conversations.services.core import sql as database
    from memory import event_loop

    left = number

    def step(name: str) -> None:
        nonlocal left
        left -= 1
        os.write(said, f"{' '.join(name.split())[:80]}\n".encode())
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(place: Any, name: str, what: str) -> None:
        work: Callable[..., Any] = getattr(place, name)

        def stepping(*given: Any, **more: Any) -> Any:
            step(f"before {what}")
            result = work(*given, **more)
            step(f"after {what}")
            return result

        setattr(place, name, stepping)

    def on_statement(execute: Any, sql: str, *rest: Any) -> Any:
        if not sql.lstrip().startswith("SELECT"):
            step(f"before {sql}")
        return execute(sql, *rest)

    around(BaseDatabaseWrapper, "_commit", "the commit")
    around(database, "_prepared", "a statement of its own")
    around(event_loop, "run", "Pinecone")
    around(http, "_exchange", "Retell")
    with connection.execute_wrapper(on_statement):
        yield


if __name__ == "__main__":
    main()
