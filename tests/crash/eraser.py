"""Erases a person, and kills itself at a step: `-m tests.crash.eraser <client> <user id> <step> <steps file>`,
in a process where Django is set up (tests.crash.preloaded).

A step is what is said to PostgreSQL (but for what only reads: then nothing is different from the step before), a
commit, and what is said to the network; each before it is said, the latter two after they were answered as well. Step 0
is never reached. The names of the steps are written to the file, a line each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MODULE = "tests.crash.eraser"


def main(client: str, user_id: str, step: str, steps: str) -> None:
    """Erase the person, or die at the step."""
    written = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with _killed_at(int(step), written):
        _erase(client, user_id)
    os._exit(0)  # tidying up takes longer than all of the above


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
def _killed_at(number: int, written: int) -> Iterator[None]:
    """This process is killed at its so many-th step, whose name is told."""
    from django.db import connection
    from django.db.backends.base.base import BaseDatabaseWrapper

    from channels_out import http
    from conversations.services.core import prepared
    from memory import event_loop

    left = number

    def step(name: str) -> None:
        nonlocal left
        left -= 1
        os.write(written, f"{' '.join(name.split())[:80]}\n".encode())
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
    around(prepared, "run", "a statement of its own")
    around(event_loop, "run", "Pinecone")
    around(http, "_exchange", "Retell")
    with connection.execute_wrapper(on_statement):
        yield


if __name__ == "__main__":
    main(*sys.argv[1:])
