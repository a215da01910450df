"""The supervisor, with real processes: what dies comes back, what is asked to stop stops, nothing stays behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from convo_project import embedded_postgres, env, processes, supervisor
from convo_project.home import CannotStartError
from convo_project.supervisor import Child, Supervisor

# A child as Convo's are: it follows its supervisor and forks a worker, whose pid it writes down.
FAMILY = """
import os, signal, sys, time
from pathlib import Path
from convo_project.processes import follow_supervisor
follow_supervisor()
if os.fork() == 0:
    Path(sys.argv[1]).write_text(str(os.getpid()))
    signal.pause()
print("ready", flush=True)
signal.pause()
"""
# Children that give signs of life: from a main loop, from one that hears no SIGTERM, and only once a file is there.
LOOP = """
import signal, sys, time
from pathlib import Path
from conversations import heartbeat
from convo_project.processes import follow_supervisor
follow_supervisor()
heartbeat.adopt_pipe()
heartbeat.EVERY_SECONDS = 0.05
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
while "late" in sys.argv and not Path(sys.argv[-1]).exists(): time.sleep(0.05)
print("ready", flush=True)
while not ("deaf" in sys.argv and Path(sys.argv[-1]).exists()):
    heartbeat.beat(); time.sleep(0.05)
while True: time.sleep(60)
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True: time.sleep(60)
"""


def python(name, code, *arguments):
    return Child(name, [sys.executable, "-c", code, *map(str, arguments)])


def is_gone(pid):
    return not processes.command_line(pid)


def pid_in(path):
    assert processes.wait_for(lambda: path.exists() and bool(path.read_text()), 60)
    return int(path.read_text())


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    """Makes supervisors that forget their pauses, and stops them."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    made = []

    def make(*children, keep_database=lambda: None, hang_seconds=float("inf")):
        for child in children:
            child.pause = 0.05
        made.append(Supervisor(tmp_path, list(children), keep_database, hang_seconds))
        return made[-1]

    yield make
    for one in made:
        one.ask_to_stop()
        one.ask_to_stop()
        one.stop()


@pytest.fixture
def screen(capfd):
    """Gives everything that was written to the screen so far."""
    written = []

    def so_far():
        written.append(capfd.readouterr().out)
        return "".join(written)

    return so_far


def test_lines_carry_the_name_of_who_wrote_them(supervise, screen):
    one = supervise(python("web", "print('hello'); print('world'); import signal; signal.pause()"))
    assert one.run_until(lambda: "world" in screen(), 60)
    assert "web        | hello\nweb        | world\n" in screen()


def test_who_was_killed_is_started_again_without_what_it_left_behind(supervise, tmp_path, screen):
    child = python("web", FAMILY, tmp_path / "worker")
    one = supervise(child)
    assert one.run_until((tmp_path / "worker").exists, 60)
    worker, first = pid_in(tmp_path / "worker"), child.pid
    (tmp_path / "worker").unlink()
    os.kill(first, signal.SIGKILL)
    assert one.run_until(lambda: child.pid not in {first, None} and (tmp_path / "worker").exists(), 60)
    assert is_gone(first)
    assert is_gone(worker)
    assert "web was killed by SIGKILL after 0 s; starting it again in 0.05 s" in screen()


def test_the_pause_grows_while_it_keeps_dying(supervise, screen):
    one = supervise(python("web", "raise SystemExit(3)"))
    assert one.run_until(lambda: "in 0.2 s" in screen(), 60)
    assert "web ended with exit code 3 after 0 s; starting it again in 0.05 s" in screen()


def test_stopping_asks_first_and_ends_those_who_do_not_listen(supervise, tmp_path, monkeypatch, screen):
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 1.0)
    family, stubborn = python("family", FAMILY, tmp_path / "worker"), python("stubborn", STUBBORN)
    one = supervise(family, stubborn)
    assert one.run_until(lambda: screen().count("| ready") >= 2, 60)
    pids = [family.pid, stubborn.pid, pid_in(tmp_path / "worker")]
    one.ask_to_stop()
    assert not one.run_until(lambda: False)
    one.stop()
    assert [pid for pid in pids if not is_gone(pid)] == []


def test_a_database_that_cannot_be_restarted_is_said_and_does_not_stop_the_rest(supervise, screen):
    def fail():
        raise CannotStartError("The disk is full.")

    one = supervise(python("web", "print('hello', flush=True); import signal; signal.pause()"), keep_database=fail)
    assert one.run_until(lambda: "hello" in screen(), 60)
    assert "The disk is full." in screen()


def test_who_cannot_be_started_is_tried_again_and_does_not_stop_the_rest(supervise, screen, monkeypatch):
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.1)
    missing = Child("missing", ["/nonexistent/program"])
    one = supervise(missing, python("web", "print('hello', flush=True); import signal; signal.pause()"))
    assert one.run_until(lambda: screen().count("missing cannot be started") >= 2 and "hello" in screen(), 60)


def test_children_and_what_they_forked_follow_a_killed_supervisor(tmp_path):
    code = f"""
import sys
from pathlib import Path
from convo_project.supervisor import Child, Supervisor
Supervisor(Path({str(tmp_path)!r}), [Child("web", [sys.executable, "-c", {FAMILY!r}, {str(tmp_path / "worker")!r}])],
    lambda: None).run_until(lambda: False)
"""
    one = subprocess.Popen([sys.executable, "-c", code], cwd=env.PROJECT)
    worker = pid_in(tmp_path / "worker")
    found = processes.supervised(tmp_path)
    one.kill()
    one.wait()
    assert worker in found
    assert len(found) == 2
    assert processes.wait_for(lambda: all(map(is_gone, found)), 60)


def test_a_child_whose_supervisor_is_gone_already_does_not_start(tmp_path):
    marked = {**os.environ, processes.SUPERVISOR: f"1 {tmp_path}"}
    code = "from convo_project.processes import follow_supervisor as f; f(); print('started')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=env.PROJECT, env=marked, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_a_closed_terminal_stops_nobody(tmp_path):
    code = """
import signal, sys
from convo_project.terminal import complain, done, say
for n in range(10000):
    say(f"line {n}"); done("step")
sys.exit(7)
"""
    one = subprocess.Popen(
        [sys.executable, "-c", code], cwd=env.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    one.stdout.close()
    assert one.wait(60) == 7
    assert one.stderr.read() == b""
    one.stderr.close()


def test_a_terminal_without_our_letters_gets_what_it_can_show():
    code = "from convo_project.terminal import say; say('ä ✓')"
    plain = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=env.PROJECT, env=plain, capture_output=True, check=True)
    assert ended.stdout == "ä ?\n".encode("latin-1")


def test_the_embedded_server_does_not_count_as_left_behind(tmp_path):
    with embedded_postgres.running(tmp_path):
        assert processes.supervised(tmp_path) == []
    embedded_postgres.remove(tmp_path)


# --- hanging ----------------------------------------------------------------------------------------------------------
HANG_SECONDS = 2.0


def watched(one, seconds):
    """Let the supervisor look for so long."""
    assert not one.run_until(lambda: False, seconds)


def test_who_gives_no_sign_of_life_any_more_is_ended_and_started_again(supervise, monkeypatch, screen):
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.5)
    child = python("web", LOOP)
    one = supervise(child, hang_seconds=HANG_SECONDS)
    assert one.run_until(lambda: "ready" in screen(), 60)
    first = child.pid
    watched(one, 2 * HANG_SECONDS)
    assert child.pid == first, "it gives signs of life"
    os.kill(first, signal.SIGSTOP)
    assert one.run_until(lambda: child.pid not in {first, None} and screen().count("ready") == 2, 60)
    assert is_gone(first)
    assert f"web hangs: no sign of life for 2 s; ending process {first}" in screen()
    assert "web was killed by SIGKILL" in screen()


def test_who_hangs_and_does_not_listen_is_killed(supervise, tmp_path, monkeypatch, screen):
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.5)
    child = python("queue", LOOP, "deaf", tmp_path / "hang")
    one = supervise(child, hang_seconds=HANG_SECONDS)
    assert one.run_until(lambda: "ready" in screen(), 60)
    first = child.pid
    (tmp_path / "hang").touch()
    assert one.run_until(lambda: is_gone(first) and child.pid not in {first, None}, 60)
    assert "queue was killed by SIGKILL" in screen()


def test_a_start_that_takes_long_does_not_hang(supervise, tmp_path, screen):
    child = python("web", LOOP, "late", tmp_path / "go on")
    one = supervise(child, hang_seconds=0.5)
    watched(one, 4)
    first = child.pid
    (tmp_path / "go on").touch()
    assert one.run_until(lambda: "ready" in screen(), 60)
    assert child.pid == first
    assert "hangs" not in screen()


def test_a_start_that_never_ends_is_begun_again(supervise, tmp_path, monkeypatch, screen):
    monkeypatch.setattr(supervisor, "BEGIN_SECONDS", 1.0)
    child = python("web", LOOP, "late", tmp_path / "go on")
    one = supervise(child, hang_seconds=0.5)
    assert one.run_until(lambda: "hangs" in screen(), 60)
    (tmp_path / "go on").touch()
    assert one.run_until(lambda: "ready" in screen(), 60)


def test_a_machine_that_stood_still_makes_nobody_look_hanging(supervise, screen):
    child = python("web", LOOP)
    one = supervise(child, hang_seconds=HANG_SECONDS)
    assert one.run_until(lambda: "ready" in screen(), 60)
    first = child.pid
    os.kill(first, signal.SIGSTOP)
    time.sleep(2 * HANG_SECONDS)  # in which the supervisor does not look either
    one.run_until(lambda: False, 0)
    os.kill(first, signal.SIGCONT)
    watched(one, 2 * HANG_SECONDS)
    assert child.pid == first
    assert "hangs" not in screen()


def test_programs_that_it_starts_do_not_get_the_pipe(supervise, screen):
    code = """
import os, subprocess, sys
from conversations import heartbeat
number = os.environ[heartbeat.VARIABLE]
heartbeat.adopt_pipe()
heartbeat.beat()
look = f"import os; print(os.path.exists('/proc/self/fd/{number}'), '{heartbeat.VARIABLE}' in os.environ, flush=True)"
subprocess.run([sys.executable, "-c", look], close_fds=False)
import signal; signal.pause()
"""
    one = supervise(python("web", code))
    assert one.run_until(lambda: "False False" in screen(), 60)
