"""How many sessions dispatchers answer at once, while a language model takes its time.

    make bench BENCH=".venv/bin/python -m tests.bench.replies" ARGS="--sessions 1000 --dispatchers 4"

Everything is real but the model, which is the tests' fake in a process of its own: the web process takes a message of
each session, the dispatchers find what is due, wait for the model over HTTP, and send over the sandbox. Prints the
wall time from the first message until the last reply is sent, and the most memory that each dispatcher took.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import requests

PROJECT = Path(__file__).parents[2]
PATIENCE = 180.0  # seconds until an answer that has not come is given up


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program of ours, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
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


def say_hello(url: str, key: str, client_id: str, sessions: int) -> None:
    """Somebody new writes in each session, 16 at a time."""

    def write(number: int) -> None:
        body = {"client_id": client_id, "user_id": f"bench-{number}", "message": f"Hello, I am number {number}."}
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


def main() -> int:
    """Measure once, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--dispatchers", type=int, default=1)
    parser.add_argument("--delay", type=float, default=2.0, help="Seconds that the model takes.")
    given = parser.parse_args()

    with running("-m", "tests.fakes.openai", "--port", "0", "--delay", str(given.delay)) as model:
        assert model.stdout is not None
        base_url = model.stdout.readline().strip()
        variables = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "", "LOG_LEVEL": "WARNING"}
        with ExitStack() as stack:
            processes = [
                stack.enter_context(running("manage.py", "dispatch", **variables)) for _ in range(given.dispatchers)
            ]
            time.sleep(5)  # until they look for work
            idle = sum(work_of(process.pid) for process in processes)
            began = time.monotonic()
            say_hello(given.url, given.api_key, given.client_id, given.sessions)
            heard = time.monotonic()
            wait_for_replies(given.sessions)
            ended = time.monotonic()
            memory = [memory_of(process.pid) for process in processes]
            work = sum(work_of(process.pid) for process in processes) - idle
    waits = seconds_to_reply()
    print(  # noqa: T201 - what it is for
        f"{given.sessions} sessions, a model that takes {given.delay:g} s, {given.dispatchers} dispatcher(s):\n"
        f"  all written after {heard - began:.1f} s, all answered and sent after {ended - began:.1f} s\n"
        f"  a session's reply: median {statistics.median(waits):.1f} s, slowest {waits[-1]:.1f} s\n"
        f"  most memory of a dispatcher: {max(memory):.0f} MB; CPU of all: {work:.1f} s,"
        f" {1000 * work / given.sessions:.0f} ms a reply"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
