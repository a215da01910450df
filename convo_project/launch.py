"""Runs all of Convo on one machine: `python -m convo_project.launch up | down | test | mutants | bench`.

`up` sets up what is missing and keeps web, dispatcher and queue alive until a signal ends it. A start recovers from a
killed one: locks end with their processes, children follow their supervisor, and PostgreSQL is taken over.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from convo_project import address, embedded_postgres, env, resident
from convo_project.commands import database, leave, read_environment
from convo_project.home import QUICKSTART, CannotStartError, claim, ensure_secrets, locked, try_lock
from convo_project.metrics import METRICS_FOLDER
from convo_project.prepare import KEY_HEADER
from convo_project.processes import end, mark, supervised
from convo_project.supervisor import STOP_SECONDS, Child, Supervisor
from convo_project.terminal import complain, done, on_a_screen, say

HEALTHY_SECONDS = 120.0
UP_LOCK = "up.lock"  # held by a running `make up`; it contains where that can be reached


def up() -> int:
    """Set up what is missing, run web, dispatcher and queue until a signal, and return the exit code."""
    on_stop_signals(leave)
    home = our_home()
    say(f"Convo in {home}")
    with only_one(home), database():
        done("secrets and database")
        prepare()
        share_counts(home)
        children = [web(), manage_py("dispatcher", "dispatch"), manage_py("qcluster", "qcluster")]
        supervisor = Supervisor(home, children, keep_database(home), resident.hang_seconds())
        on_stop_signals(supervisor.ask_to_stop)
        try:
            wait_until_healthy(supervisor)
            if not supervisor.stop_requests:
                show_what_to_try(home)
            supervisor.run_until(lambda: False)
        finally:
            say("Stopping.")
            supervisor.stop()
    say("Stopped.")
    return 0


def down() -> int:
    """Stop a running `up`, or what a killed one left behind, and return the exit code."""
    home = env.home()
    if not home.exists():
        say(f"Nothing runs in {home}.")
        return 0
    claim(home)
    supervisor = running_supervisor(home)
    if supervisor:
        say(f"Stopping the 'make up' in {home} (process {supervisor})")
        steps = ((signal.SIGTERM, 2 * STOP_SECONDS), (signal.SIGKILL, 10.0))
        end(lambda: [pid] if (pid := running_supervisor(home)) else [], steps)
    end_leftovers(home)
    embedded_postgres.stop(home)
    embedded_postgres.stop_if_unused(home / "test")
    say(f"Nothing runs in {home} any more. The data are kept.")
    return 0


def test(arguments: list[str]) -> int:
    """Run pytest on a separate database and return its exit code."""
    # More workers than the cores of a small machine: tests wait for the database and for other processes.
    defaults = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not browser"]
    return run_on_test_database([sys.executable, "-m", "pytest", *defaults, *arguments])


def mutants(arguments: list[str]) -> int:
    """Run the mutation tests on separate databases and return their exit code."""
    return run_on_test_database([sys.executable, "-m", "tests.mutants", *arguments])


def run_on_test_database(command: list[str]) -> int:
    """Run a program with the server of the tests and return its exit code."""
    on_stop_signals(leave)
    home = our_home() / "test"
    claim(home)
    ensure_secrets(home)
    os.environ["CONVO_HOME"] = str(home)
    with one_test_run(home), database():
        if not env.text("DATABASE_URL"):
            embedded_postgres.hurry(home)
        return run(command)


def bench(arguments: list[str]) -> int:
    """Run the program BENCH against a separate web process and database, and return its exit code."""
    on_stop_signals(leave)
    read_environment()
    home = Path(tempfile.mkdtemp(prefix="convo-bench-")).resolve()
    os.environ |= {"CONVO_HOME": str(home), "DATABASE_URL": "", "HOST": "", "PORT": str(address.free_port())}
    try:
        with database():
            prepare()
            child = web()
            supervisor = Supervisor(home, [child], keep_database(home))
            try:
                wait_until_healthy(supervisor)
                facts = json.loads((home / QUICKSTART).read_text())
                where = ["--url", facts["base_url"], "--pid", str(child.pid)]
                who = ["--api-key", facts["api_key"], "--client-id", facts["client_id"]]
                os.environ |= embedded_postgres.client_environment(home)
                program = shlex.split(env.text("BENCH") or "../shared/bench/compare")
                return run([*program, *where, *who, *arguments])
            finally:
                supervisor.stop()
    finally:
        embedded_postgres.remove(home)
        shutil.rmtree(home)


# --- one at a time ----------------------------------------------------------------------------------------------------


def our_home() -> Path:
    """Return CONVO_HOME, created with its secrets if it is missing, after loading its files into the environment."""
    read_environment()
    home = env.home()
    claim(home)
    ensure_secrets(home)
    os.environ["CONVO_HOME"] = str(home)  # absolute, for the processes we start elsewhere
    env.load_files()
    return home


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the lock of `home` inside the block, with no leftovers of an earlier `up`, and HOST and PORT free.

    Raises CannotStartError if another `up` is running, or the port is taken.
    """
    lock = try_lock(home / UP_LOCK)
    if lock is None:
        raise CannotStartError(
            f"Convo already runs in {home} (process {running_supervisor(home)}). "
            f"Stop it with 'make down', or start a second one: make up CONVO_HOME=… PORT=…"
        )
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        end_leftovers(home)
        address.refuse_if_taken()
        yield
    finally:
        os.close(lock)


def running_supervisor(home: Path) -> int | None:
    """Return the pid of the `up` that runs in `home`, or None."""
    lock = try_lock(home / UP_LOCK)
    if lock is not None:
        os.close(lock)
        return None
    text = (home / UP_LOCK).read_text()
    return int(text) if text.isdigit() else None


def end_leftovers(home: Path) -> None:
    """End the processes that an earlier `up` in `home` left behind."""
    if not end(lambda: supervised(home), ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))):
        raise CannotStartError(f"Processes of an earlier 'make up' do not end: {supervised(home)}. Kill them.")


@contextmanager
def one_test_run(home: Path) -> Iterator[None]:
    """Wait until no other test run uses the databases of `home`, and keep others out inside the block."""
    lock = try_lock(home / "run.lock")
    if lock is None:
        say(f"Another test run uses {home}; waiting for it.")
        with locked(home / "run.lock"):
            yield
    else:
        with os.fdopen(lock):
            yield


# --- running ----------------------------------------------------------------------------------------------------------


def share_counts(home: Path) -> None:
    """Empty the folder in which the processes of this `up` count for `/metrics`, and name it to them."""
    folder = home / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.environ[METRICS_FOLDER] = str(folder)


def web() -> Child:
    """Return the web process."""
    return Child("web", [sys.executable, "-m", "convo_project.web"])


def manage_py(name: str, command: str) -> Child:
    """Return the process of a management command that does not end."""
    return Child(name, [sys.executable, "manage.py", command])


def prepare() -> None:
    """Prepare the database in a process of its own, since that needs Django. Raises CannotStartError."""
    command = [sys.executable, "-m", "convo_project.prepare"]
    done_by = subprocess.run(command, cwd=env.PROJECT, env={**os.environ, **mark(env.home())}, check=False)
    if done_by.returncode:
        raise CannotStartError("Convo could not be set up; the lines above say why.")


def keep_database(home: Path) -> Callable[[], None]:
    """Return a function that restarts the embedded server of `home` if it died; it does nothing with a DATABASE_URL."""
    if env.text("DATABASE_URL"):
        return lambda: None

    def keep() -> None:
        if not embedded_postgres.is_running(home):
            say("PostgreSQL died; starting it again")
            embedded_postgres.start(home)

    return keep


def wait_until_healthy(supervisor: Supervisor) -> None:
    """Wait until the web process answers or a stop is requested. Raises CannotStartError after HEALTHY_SECONDS."""
    if not supervisor.run_until(is_healthy, HEALTHY_SECONDS) and not supervisor.stop_requests:
        raise CannotStartError(f"{address.base_url()} does not answer; the lines above say why.")


def is_healthy() -> bool:
    """Return whether the web process answers."""
    connection = http.client.HTTPConnection(address.base_url().removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run(command: list[str]) -> int:
    """Run a program and return its exit code. The terminal sends it Ctrl-C itself; other signals are passed on."""
    try:
        process = subprocess.Popen(command, cwd=env.PROJECT)
    except OSError as problem:
        raise CannotStartError(f"{command[0]} cannot be run ({problem.strerror}).") from None
    on_stop_signals(lambda number, _frame: process.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return process.wait()


def on_stop_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call `handler` on INT, TERM and HUP; not on HUP if we were started to ignore it (nohup)."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def show_what_to_try(home: Path) -> None:
    """Write the last screen of a start: what to open, what to paste, how to stop."""
    facts = json.loads((home / QUICKSTART).read_text())
    message = {"client_id": facts["client_id"], "user_id": "alice", "message": "Hello, is anybody there?"}
    curl = f"curl -sS -H @{shlex.quote(str(home / KEY_HEADER))}"
    post = (
        f"{curl} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(message))} "
        f"{facts['base_url']}/webhooks/whatsapp/inbound"
    )
    find_id = r"""sed -n 's/.*"conversation_id": *"\{0,1\}\([^",}]*\).*/\1/p'"""
    password = f"password {facts['admin_password']}" if on_a_screen() else f"password in {home / QUICKSTART}"
    say(f"""
Convo runs: {facts["base_url"]}

  Back office  {facts["admin_url"]}
               user {facts["admin_username"]}, {password}
  Simulator    {facts["simulator_url"]}
               write as a customer on any channel, and see the reply arrive
  Copilot      {facts["base_url"]}/copilot/app
               ask an assistant, as the same user
  API          {facts["base_url"]}/docs/

Or send a message as your own program would, and read the conversation with the reply:

  answer=$({post}); echo "$answer"
  sleep 4; {curl} {facts["base_url"]}/conversations/$(echo "$answer" | {find_id})

Stop it with Ctrl-C, or with 'make down' from another terminal. The data are kept in {home}.
""")


def main(arguments: list[str]) -> int:
    """Run one of the commands and return the exit code. Problems of the set-up are reported in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m convo_project.launch", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help=up.__doc__)
    commands.add_parser("down", help=down.__doc__)
    commands.add_parser("test", help=test.__doc__)
    commands.add_parser("mutants", help=mutants.__doc__)
    commands.add_parser("bench", help=bench.__doc__)
    chosen, rest = parser.parse_known_args(arguments)
    rest = rest[1:] if rest[:1] == ["--"] else rest
    try:
        match chosen.command:
            case "up":
                return up()
            case "down":
                return down()
            case "test":
                return test(rest)
            case "mutants":
                return mutants(rest)
            case _:
                return bench(rest)
    except (CannotStartError, ImproperlyConfigured) as problem:
        complain(str(problem))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
