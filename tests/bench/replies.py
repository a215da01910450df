"""How many sessions dispatchers answer at once, while a language model takes its time.

    make bench BENCH=".venv/bin/python -m tests.bench.replies" ARGS="--sessions 1000 --dispatchers 4"
    make bench BENCH=".venv/bin/python -m tests.bench.replies" ARGS="--checkout ../before --checkout . --rounds 3"

With several checkouts, their dispatchers answer in turn, on the database of this one.

Everything is real but the model, which is the tests' fake in a process of its own: the web process takes a message of
each session, the dispatchers find what is due, wait for the model over HTTP, and send over the sandbox. Prints the
wall time from the first message until the last reply is sent, the most memory that each dispatcher took, and the CPU of
dispatchers and PostgreSQL a reply. The dispatchers stand still while the messages arrive, so that PostgreSQL's CPU is
that of the replies alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import requests

PROJECT = Path(__file__).parents[2]
IDLE_WORK = 0.2  # seconds of CPU in two
PATIENCE = 180.0  # seconds until an answer that has not come is given up


@contextmanager
def running(*arguments: str, folder: Path = PROJECT, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program of ours, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)  # where it was made to stand still
        process.terminate()
        process.wait(30)


def memory_of(pid: int) -> float:
    """The most memory that the process ever took, in MB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def work_of(pid: int) -> float:
    """The seconds of CPU that the process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(pids: list[int]) -> None:
    """Return when the processes have imported everything, and only look for work."""
    busy = IDLE_WORK + 1
    while busy > IDLE_WORK:
        before = sum(map(work_of, pids))
        time.sleep(2)
        busy = sum(map(work_of, pids)) - before


def work_of_postgresql() -> float:
    """The seconds of CPU that all of PostgreSQL's processes have taken, those that ended too."""
    with psycopg.connect("", autocommit=True) as database:
        found = database.execute("SELECT pg_backend_pid()").fetchone()
        assert found is not None
        postmaster = _stat(found[0])[1]
    ended = sum(map(int, _stat(postmaster)[11:15]))  # its own, and its children's that ended
    alive = 0
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = _stat(each.name)
            if fields[1] == postmaster:
                alive += int(fields[11]) + int(fields[12])
    return (ended + alive) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def say_hello(url: str, key: str, client_id: str, sessions: int, name: str) -> None:
    """Somebody new writes in each session, 16 at a time."""

    def write(number: int) -> None:
        body = {"client_id": client_id, "user_id": f"bench-{name}-{number}", "message": f"Hello, I am number {number}."}
        answer = requests.post(f"{url}/webhooks/sms/inbound", json=body, headers={"X-Service-API-Key": key}, timeout=60)
        answer.raise_for_status()

    with ThreadPoolExecutor(16) as people:
        list(people.map(write, range(sessions)))


def wait_for_replies(sessions: int) -> None:
    """Return when each session's reply is sent. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect("", autocommit=True) as database:
        while time.monotonic() < deadline:
            counted = database.execute(
                "SELECT count(*) FROM conversation_messages WHERE status = 'delivered'"
            ).fetchone()
            if counted and counted[0] >= sessions:
                return
            time.sleep(0.1)
    raise TimeoutError(f"{counted} of {sessions} replies were sent within {PATIENCE:g} s.")


def seconds_to_reply() -> list[float]:
    """From each session's message to its reply's commit."""
    with psycopg.connect("") as database:
        found = database.execute(
            """
            SELECT extract(epoch FROM a.created_at - u.created_at)::float
            FROM conversation_chunks a JOIN conversation_chunks u USING (conversation_id)
            WHERE a.role = 'ai' AND u.role = 'user' ORDER BY 1
            """
        ).fetchall()
    return [seconds for (seconds,) in found]


def measure(given: argparse.Namespace, checkout: Path, name: str, already: int) -> tuple[float, float]:
    """Have the checkout's dispatchers answer new sessions, print what was seen, and return the CPU a reply in ms: of
    the dispatchers, and of PostgreSQL. `already`: replies that were sent before."""
    with running("-m", "tests.fakes.openai", "--port", "0", "--delay", str(given.delay)) as model, ExitStack() as stack:
        assert model.stdout is not None
        base_url = model.stdout.readline().strip()
        variables = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "", "LOG_LEVEL": "WARNING"}
        processes = [
            stack.enter_context(running("manage.py", "dispatch", folder=checkout, **variables))
            for _ in range(given.dispatchers)
        ]
        wait_until_idle([process.pid for process in processes])
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        say_hello(given.url, given.api_key, given.client_id, given.sessions, name)
        idle, idle_postgresql = sum(work_of(process.pid) for process in processes), work_of_postgresql()
        heard = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGCONT)
        wait_for_replies(already + given.sessions)
        ended = time.monotonic()
        memory = [memory_of(process.pid) for process in processes]
        work = 1000 * (sum(work_of(process.pid) for process in processes) - idle) / given.sessions
        postgresql = 1000 * (work_of_postgresql() - idle_postgresql) / given.sessions
    waits = seconds_to_reply()
    print(  # noqa: T201 - what it is for
        f"{checkout}: {given.sessions} sessions, a model that takes {given.delay:g} s,"
        f" {given.dispatchers} dispatcher(s):\n"
        f"  all written after {heard - began:.1f} s, all answered and sent {ended - heard:.1f} s later\n"
        f"  a session's reply: median {statistics.median(waits):.1f} s, slowest {waits[-1]:.1f} s\n"
        f"  most memory of a dispatcher: {max(memory):.0f} MB\n"
        f"  CPU a reply: dispatchers {work:.1f} ms, PostgreSQL {postgresql:.1f} ms",
        flush=True,
    )
    return work, postgresql


def main() -> int:
    """Measure each checkout in turn, and print what was seen and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--dispatchers", type=int, default=1)
    parser.add_argument("--delay", type=float, default=2.0, help="Seconds that the model takes.")
    parser.add_argument("--checkout", type=Path, action="append", help="A folder with a version of Convo; repeatable.")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()

    seen: dict[Path, list[tuple[float, float]]] = {each.resolve(): [] for each in given.checkout or [PROJECT]}
    turns = [(number, checkout) for number in range(given.rounds) for checkout in seen]
    for already, (number, checkout) in enumerate(turns):
        name = f"{number}-{list(seen).index(checkout)}"
        seen[checkout].append(measure(given, checkout, name, already * given.sessions))
    if given.rounds > 1 or len(seen) > 1:
        for checkout, found in seen.items():
            work, postgresql = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"{checkout}: median CPU a reply {work:.1f} ms and {postgresql:.1f} ms")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
