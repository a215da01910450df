"""Workers, each with a copy of the project and a database of its own, and what becomes of each mutant."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from convo_project import embedded_postgres, env
from tests.mutants.mutants import Mutant
from tests.mutants.recording import Recording

NOT_COPIED = (
    ".git",
    ".venv",
    ".convo",
    ".env",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "staticfiles",
    "node_modules",
)
Job = TypeVar("Job")
RECORD_SECONDS = 900.0  # of a file of tests
START_SECONDS = 60.0  # of a child, on a machine that is busy with other things


@dataclass(slots=True)
class Trial:
    """A mutant, its tests, and how it ended: killed, timed out, survived, unreached or broken.

    by: the test that failed
    """

    mutant: Mutant
    tests: list[str]
    expected: float
    ended: str = ""
    by: str = ""
    seconds: float = 0.0
    not_used: set[str] = field(default_factory=set)

    @property
    def is_killed(self) -> bool:
        """Return whether the tests noticed the mutant."""
        return self.ended in {"killed", "timed out"}


class Worker:
    """A process of `tests.mutants.worker` in a copy of the project."""

    def __init__(self, root: Path, folder: Path, number: int) -> None:
        copy = folder / f"copy-{number}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        url, _, query = _database_url().partition("?")
        database = f"{url.rpartition('/')[0]}/mutants_{number}" + (f"?{query}" if query else "")
        environment = {**os.environ, "DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "convo_project.settings"}
        for name in ("PYTHONDONTWRITEBYTECODE", "LONG_TESTS"):
            environment.pop(name, None)
        environment["PYTHONPATH"] = str(copy)
        self._log = (folder / f"worker-{number}.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.worker"],
            cwd=copy,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.copy = copy

    def wait_until_ready(self) -> None:
        """Wait for the libraries to be imported. Raises RuntimeError if the process ended."""
        self._read()

    def run(self, module: str, source: str, tests: list[str], limit: float) -> dict[str, Any]:
        """Return how the tests ended on this source. Raises RuntimeError if the process ended."""
        return self._ask({"module": module, "source": source, "tests": tests, "limit": limit})

    def record(self, file: str, to: Path, limit: float) -> dict[str, Any]:
        """Run a file of tests without a fault and write its record; return how the tests ended."""
        return self._ask({"file": file, "to": str(to), "limit": limit})

    def close(self) -> None:
        """End the process and what it started."""
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A worker ended; {self._log.name} says why.")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def workers(root: Path, folder: Path, number: int) -> Iterator[list[Worker]]:
    """Yield workers that are ready, and end them after the block."""
    started = [Worker(root, folder, each) for each in range(number)]
    try:
        for worker in started:
            worker.wait_until_ready()
        yield started
    finally:
        for worker in started:
            worker.close()


def try_all(trials: Iterable[Trial], those: list[Worker], told: Callable[[Trial], None]) -> None:
    """Try each mutant on the next free worker; `told` is called with each that has ended, one at a time."""
    _share(trials, those, _try, told)


def record_all(recording: Recording, files: Iterable[str], those: list[Worker], told: Callable[[str], None]) -> None:
    """Record each file of tests on the next free worker; `told` is called with each that has ended."""

    def work(worker: Worker, file: str) -> None:
        worker.record(file, recording.path_of(file), RECORD_SECONDS)

    _share(files, those, work, told)


def passing(tests: list[str], worker: Worker, source: tuple[str, str]) -> set[str]:
    """Return those of the tests that pass without a fault; a test that fails has killed nothing.

    source: a module and its text, which is written as it is
    """
    left = list(tests)
    while left:
        result = worker.run(*source, left, START_SECONDS + 60.0 * len(left))
        if result["ended"] == "passed":
            return set(left)
        left = [test for test in left if test != result["by"]] if result["by"] in left else []
    return set()


def _database_url() -> str:
    """Return the address of the tests' server, as the settings find it."""
    return env.text("DATABASE_URL") or embedded_postgres.database_url(env.home())


def _try(worker: Worker, trial: Trial) -> None:
    tests = [test for test in trial.tests if test not in trial.not_used]
    if not tests:
        trial.ended = "unreached"
        return
    limit = START_SECONDS + 5 * trial.expected
    result = worker.run(trial.mutant.place.module, trial.mutant.source, tests, limit)
    trial.ended = {"passed": "survived", "failed": "killed"}.get(result["ended"], result["ended"])
    trial.by, trial.seconds = result["by"], result["seconds"]


def _share(
    jobs: Iterable[Job],
    those: list[Worker],
    work: Callable[[Worker, Job], None],
    told: Callable[[Job], None],
) -> None:
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    one_at_a_time = threading.Lock()
    problems: list[BaseException] = []

    def run(worker: Worker) -> None:
        while not problems:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(worker, job)
                with one_at_a_time:
                    told(job)
            except BaseException as problem:
                problems.append(problem)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in those]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
