"""Tries one mutant after another in a copy of the project: `python -m tests.mutants.worker`, started by `trying.py`.

A line of JSON on stdin is a mutant and its tests, or a file of tests to record; a line on stdout is the result. This
process imports the libraries once and nothing of the project. For each mutant it writes the module into the copy and
forks: the child imports the project with the fault in it, runs the tests until one fails, and ends. A pyc file is told
from a newer one by the second of its source, so each mutant is given a second of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import recorder

OURS = ("conversations", "memory", "channels_out", "tests", "convo_project")
_LIBRARIES = """
import sys, json, django
before = set(sys.modules)
django.setup()
import convo_project.urls, tests.conftest, responses, hypothesis.strategies, hypothesis.stateful
print(json.dumps([name for name in sys.modules if name not in before]))
"""
ENDED = {None: "timed out", 0: "passed", 1: "failed", 5: "broken"}  # by pytest's exit code; others are failures as well
FIRST_SECOND = 1_000_000_000  # of the mutants' files: long before any file that somebody wrote


class Barred:
    """An importer that refuses the project, which some libraries import by the names in the settings."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError for the project."""
        if name.partition(".")[0] in {"conversations", "memory"}:
            raise ImportError(f"{name} is imported by each child.")


class Chosen:
    """A plugin of pytest that runs the chosen tests in their order and writes down the first that fails."""

    def __init__(self, tests: list[str], found: Path) -> None:
        self.order = {test: number for number, test in enumerate(tests)}
        self.found = found

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests. A file without `::` is chosen as a whole."""

        def place(item: pytest.Item) -> int | None:
            return self.order.get(item.nodeid, self.order.get(item.nodeid.partition("::")[0]))

        items[:] = sorted((item for item in items if place(item) is not None), key=lambda item: place(item) or 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down a failure."""
        if report.failed:
            self._write(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down a file that cannot be imported."""
        if report.failed:
            self._write(report.nodeid)

    def _write(self, test: str) -> None:
        if not self.found.exists():
            self.found.write_text(test)


def main() -> None:
    """Answer each mutant until stdin ends."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through `finally`, where the child is ended
    preload()
    print(json.dumps({"ready": True}), file=results, flush=True)
    fresh = True
    for number, line in enumerate(sys.stdin):
        job = json.loads(line)
        result = recorded(job, fresh=fresh) if "file" in job else attempt(job, FIRST_SECOND + number, fresh=fresh)
        fresh = result["ended"] != "passed"  # whatever else left something in the database
        print(json.dumps(result), file=results, flush=True)


def preload() -> None:
    """Import what the project imports of others, and nothing of the project but its settings."""
    listed = subprocess.run([sys.executable, "-c", _LIBRARIES], stdout=subprocess.PIPE, check=True).stdout
    barred = Barred()
    sys.meta_path.insert(0, barred)
    for name in [*recorder.PLUGINS, "_pytest.assertion.rewrite", *json.loads(listed.splitlines()[-1])]:
        if name.partition(".")[0] in OURS or name.endswith((".models", ".admin", "__main__")):
            continue
        try:
            importlib.import_module(name)
        except Exception:  # noqa: S112 - what cannot be imported alone is imported by each child
            continue
    sys.meta_path.remove(barred)
    ours = [name for name in sys.modules if name.startswith(("conversations.", "memory."))]
    if ours:
        raise SystemExit(f"The libraries import the project: {ours[:5]}")


def attempt(job: dict[str, Any], second: int, *, fresh: bool) -> dict[str, Any]:
    """Run the job's tests on the job's source, and return how it ended: passed, failed, timed out or broken."""
    module = Path(job["module"])
    original, times = module.read_bytes(), module.stat()
    found = Path("failed-test.txt")
    found.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        module.write_text(job["source"], encoding="utf-8")
        os.utime(module, (second, second))
        code = in_child(lambda: run_tests(job["tests"], found, fresh=fresh), job["limit"])
    finally:
        module.write_bytes(original)
        os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    failed = found.read_text() if found.exists() else ""
    return {
        "ended": ENDED.get(code, "failed"),
        "by": failed,
        "code": code,
        "seconds": round(time.monotonic() - began, 1),
    }


def recorded(job: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """Run a file of tests and write its record; return how that ended."""
    code = in_child(lambda: recorder.record(job["file"], Path(job["to"]), fresh=fresh), job["limit"])
    return {"ended": ENDED.get(code, "failed"), "code": code}


def run_tests(tests: list[str], found: Path, *, fresh: bool) -> int:
    """Run the tests in this process and return pytest's exit code."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    return int(pytest.main([*recorder.options(fresh=fresh, timeout=60), "-x", *files], plugins=[Chosen(tests, found)]))


def in_child(work: Any, limit: float) -> int | None:
    """Fork, work in the child, and return its exit code; None if it took longer than `limit` seconds.

    Whatever the child started ends with it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setsid()
            log = os.open("last-run.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return ended(child, limit)


def ended(child: int, limit: float) -> int | None:
    """Return the child's exit code, or None if it took too long. It has ended then, with all that it started."""
    watched = os.pidfd_open(child)
    in_time: list[tuple[int, int]] = []
    try:
        # select() refuses a descriptor of 1,024 or more, and a process that ran many tests has such.
        waiting = select.poll()
        waiting.register(watched, select.POLLIN)
        in_time = waiting.poll(limit * 1000)
    finally:
        os.close(watched)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None


if __name__ == "__main__":
    main()
