"""Starts Convo's programs as forks of a process that has imported all of Convo: `python -m tests.crash.preloaded`.

Python and Django take two seconds of CPU to start, and the tests of this folder start some eighty processes. One
process for each set of variables (`Preloaded`) imports everything once. It reads an order a line: to start a program,
which becomes a process group of its own with its own arguments and log, or to tell the exit code of one it started.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from django.conf import settings

MODULE = "tests.crash.preloaded"


# --- who asks ---------------------------------------------------------------------------------------------------------
class Preloaded:
    """The process that forks. Its own output is in `log`. `tree`: the checkout whose code it runs, if not this one."""

    def __init__(self, variables: Mapping[str, str], log: Path, tree: Path | None = None) -> None:
        self._asking = threading.Lock()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                cwd=tree or settings.BASE_DIR,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def start(self, arguments: list[str], log: Path) -> int:
        """Start a program and return its pid. `arguments` are Python's: `-m module …` or `program.py …`."""
        return int(self._ask({"start": arguments, "log": str(log)}))

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a program, negative for a signal, and None while it runs."""
        code: int | None = self._ask({"exit_code": pid})
        return code

    def close(self) -> None:
        """End the process, and whatever it started that still runs."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with self._asking:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


# --- who forks --------------------------------------------------------------------------------------------------------
def main() -> None:
    """Do what is asked, until nobody asks any more."""
    _import_everything()
    assert threading.active_count() == 1, "a fork would lack the other threads"
    codes: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "exit_code" in order:
            answer = _exit_code(order["exit_code"], codes)
        else:
            # The log and the process group are made here: both are there as soon as the pid is known.
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            if (answer := os.fork()) == 0:
                _print_to(log)
                return _run(order["start"])
            os.setpgid(answer, answer)
            os.close(log)
        print(json.dumps(answer), flush=True)  # noqa: T201
    return None


def _import_everything() -> None:
    from convo_project.processes import follow_supervisor

    follow_supervisor()  # and so does every fork
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    import django

    django.setup()
    for module in (
        *("granian.server", "openai", "pinecone.async_client.async_index"),
        *("conversations.management.commands.dispatch", "convo_project.wsgi"),
    ):
        import_module(module)
    from django.urls import get_resolver

    get_resolver().check()
    gc.freeze()  # or the first collection in a fork would write to, and thereby copy, every page


def _exit_code(pid: int, codes: dict[int, int]) -> int | None:
    if pid not in codes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        codes[pid] = os.waitstatus_to_exitcode(status)
    return codes[pid]


def _print_to(log: int) -> None:
    """Leave the asker's pipes: nothing is read any more, and what is printed goes to the log."""
    for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(source, target)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
