"""`make up` and `make down` as a user meets them: the real processes, real signals, and the pasted curl."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import requests
from cryptography.fernet import Fernet

from convo_project import commands, embedded_postgres, env, postgres_place, processes
from convo_project.address import free_port
from convo_project.launch import main, show_what_to_try
from tests.convo_project.running import Up, answers, environment, is_gone, launch, manage

pytestmark = pytest.mark.timeout(600)  # the whole of Convo, on a machine that may be slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("convo").resolve()
    yield home
    launch(home, 8000, "down")
    embedded_postgres.remove(home)


@pytest.fixture(scope="module")
def running():
    """What is running, for the next test to use."""
    found = []
    yield found
    for one in found:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture
def up(home, running):
    """A running `make up`: the one that the test before left, or a new one in the same home."""
    if not running or running[-1].process.poll() is not None:
        running.append(Up(home, free_port()))
    return running[-1]


def test_the_last_screen_says_what_to_open_and_keeps_the_secrets(up):
    facts = up.quickstart()
    assert set(facts) == {
        *("base_url", "client_id", "sub_domain", "api_key"),
        *("admin_url", "simulator_url", "admin_username", "admin_password"),
    }
    assert facts["base_url"] == f"http://127.0.0.1:{up.port}"
    assert f"{facts['admin_url']}\n" in up.text
    assert f"{facts['simulator_url']}\n" in up.text
    assert facts["api_key"] not in up.text
    assert facts["admin_password"] not in up.text
    for name in ("quickstart.json", "secrets.env", "api-key.header"):
        assert stat.S_IMODE((up.home / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("is_a_terminal", [True, False])
def test_only_a_terminal_is_shown_the_password(tmp_path, monkeypatch, capsys, is_a_terminal):
    names = ("base_url", "client_id", "api_key", "admin_url", "simulator_url", "admin_username", "admin_password")
    facts = {name: f"the-{name}" for name in names}
    (tmp_path / "quickstart.json").write_text(json.dumps(facts))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_a_terminal)
    show_what_to_try(tmp_path)
    said = capsys.readouterr().out
    assert ("the-admin_password" in said) == is_a_terminal
    assert (f"password in {tmp_path / 'quickstart.json'}" in said) != is_a_terminal
    assert "the-api_key" not in said


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="what is pasted needs curl and a shell")
def test_what_the_last_screen_says_can_be_pasted(up):
    pasted = "\n".join(line for line in up.text.splitlines() if "curl " in line)
    done = subprocess.run([shutil.which("bash"), "-c", pasted], capture_output=True, text=True, timeout=60, check=True)
    first, session = map(json.loads, done.stdout.splitlines())
    assert first["data"]["created"] is True
    assert session["data"]["id"] == first["data"]["conversation_id"]
    assert [chunk["role"] for chunk in session["data"]["chunks"]] == ["system", "memory", "user", "ai"]


def test_the_admin_opens_with_the_password_in_the_quickstart(up):
    facts = up.quickstart()
    code = (
        "from django.contrib.auth import authenticate as a; import json, pathlib; "
        f"f = json.loads(pathlib.Path({str(up.home / 'quickstart.json')!r}).read_text()); "
        "print(a(username=f['admin_username'], password=f['admin_password']).is_staff)"
    )
    assert manage(environment(up.home, up.port), "shell", "-v", "0", "-c", code).stdout.strip() == "True"
    assert requests.get(facts["admin_url"], timeout=30).status_code == 200


def test_a_second_one_in_the_same_home_says_that_one_is_running(up):
    second = launch(up.home, free_port(), "up")
    assert second.returncode == 1
    assert f"already runs in {up.home} (process {up.process.pid})" in second.stderr
    assert answers(up)


def test_a_taken_port_is_a_sentence_that_names_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = launch(tmp_path, port, "up")
    assert refused.returncode == 1
    assert re.fullmatch(rf"Port {port} at 127.0.0.1 cannot be used \(.*\)\. .* PORT=\d+\n", refused.stderr)


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("PORT", "70000"), ("HOST", "example")])
def test_nonsense_in_the_environment_is_a_sentence(tmp_path, monkeypatch, name, value):
    refused = subprocess.run(
        [sys.executable, "-m", "convo_project.launch", "up"],
        cwd=env.PROJECT,
        env={**environment(tmp_path, 8000), name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{name} must ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [b"convo_project.web", b"dispatch", b"qcluster"])
def test_whoever_is_killed_comes_back_and_leaves_nothing_behind(up, command):
    assert processes.wait_for(lambda: len(up.pids(command)) >= 1, 60)
    family = up.pids(command)
    os.kill(family[0], signal.SIGKILL)
    assert processes.wait_for(lambda: all(map(is_gone, family)), 60)
    assert processes.wait_for(lambda: len(up.pids(command)) >= len(family), 60)
    assert answers(up)


def test_a_killed_web_worker_comes_back(up):
    assert processes.wait_for(lambda: len(up.pids(b"convo_project.web")) == 3, 60)
    main, worker, _ = up.pids(b"convo_project.web")
    os.kill(worker, signal.SIGKILL)
    assert processes.wait_for(lambda: is_gone(worker) and len(up.pids(b"convo_project.web")) == 3, 60)
    assert not is_gone(main)
    assert answers(up)


def test_a_killed_postgresql_comes_back_with_its_data(up):
    place = postgres_place.place_of(up.home)
    before = up.send("Remember this")
    os.kill(embedded_postgres._postmaster(place), signal.SIGKILL)
    assert up.says("PostgreSQL died; starting it again")
    assert answers(up)
    after = up.send("And this")
    assert after["conversation_id"] == before["conversation_id"]
    assert after["position"] > before["position"]


def test_with_a_database_of_ones_own_nothing_is_started(up, tmp_path):
    given = environment(tmp_path, 8000) | {"DATABASE_URL": embedded_postgres.database_url(up.home)}
    refused = manage(given, "check")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("SECRET_KEY is not set. Run 'make up' once")
    done = manage(given | env_of(up.home / "secrets.env"), "check", "--database", "default")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def env_of(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_down_stops_a_running_one_and_a_second_start_keeps_data_and_keys(up, running):
    home, facts, first = up.home, up.quickstart(), up.send("Remember me")
    family = processes.supervised(home)
    assert launch(home, up.port, "down").returncode == 0
    assert up.process.wait(60) == 0
    assert up.says("Stopped.")
    assert [pid for pid in family if not is_gone(pid)] == []
    assert not embedded_postgres.is_running(home)

    again = Up(home, free_port(), WEB_WORKERS="1")
    running.append(again)
    assert again.quickstart() == {
        **facts,
        "base_url": f"http://127.0.0.1:{again.port}",
        "admin_url": f"http://127.0.0.1:{again.port}/admin/",
        "simulator_url": f"http://127.0.0.1:{again.port}/admin/conversations/channelaccount/simulator/",
    }
    assert again.send("Still there?")["conversation_id"] == first["conversation_id"]


def test_up_with_a_database_of_ones_own_starts_none_and_ctrl_c_stops_it(up, tmp_path):
    home = tmp_path.resolve()
    one = Up(home, free_port(), DATABASE_URL=embedded_postgres.database_url(up.home), WEB_WORKERS="1")
    try:
        assert one.send("Hello")["conversation_id"]
        assert not (home / "postgres").exists()
        family = processes.supervised(home)
    finally:
        assert one.stop(signal.SIGINT) == 0
    assert one.says("Stopped.")
    assert [pid for pid in family if not is_gone(pid)] == []
    assert embedded_postgres.is_running(up.home), "which is not its to stop"


def test_ctrl_c_stops_everything_and_the_embedded_postgresql_too(up):
    family = processes.supervised(up.home)
    assert up.stop(signal.SIGINT) == 0
    assert up.says("Stopped.")
    assert [pid for pid in family if not is_gone(pid)] == []
    assert not embedded_postgres.is_running(up.home)


def test_what_a_killed_one_left_is_ended_by_down(up):
    home, family = up.home, processes.supervised(up.home)
    up.process.kill()
    up.process.wait()
    assert len(family) >= 5
    assert processes.wait_for(lambda: all(map(is_gone, family)), 60)
    assert embedded_postgres.is_running(home)
    done = launch(home, up.port, "down")
    assert done.returncode == 0, done.stderr
    assert not embedded_postgres.is_running(home)


def test_a_command_that_is_interrupted_says_so_in_a_line(tmp_path):
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    given = environment(tmp_path, 8000) | {"DATABASE_URL": "postgres:///unused", "SECRET_KEY": "x" * 50}
    done = manage(given | {"CREDENTIALS_KEYS": Fernet.generate_key().decode()}, "shell", "-v", "0", "-c", code)
    assert (done.returncode, done.stderr.splitlines()[-1][:12]) == (130, "Interrupted.")
    assert "Traceback" not in done.stderr


def test_a_command_alone_starts_the_database_and_stops_it_again(tmp_path):
    home = tmp_path.resolve()
    try:
        done = manage(environment(home, 8000), "check", "--database", "default")
        assert done.returncode == 0, done.stderr
        assert not embedded_postgres.is_running(home)
        assert (home / "postgres" / "passwords.json").exists()
    finally:
        embedded_postgres.remove(home)


def test_tests_run_on_a_database_of_their_own_that_waits_for_no_disk(tmp_path):
    home = tmp_path.resolve()
    try:
        done = launch(home, 8000, "test", "--", "--version")
        assert done.returncode == 0
        settings = postgres_place.place_of(home / "test").data / "postgresql.auto.conf"
        assert "fsync = 'off'" in settings.read_text()
        assert (home / "test" / "postgres" / "passwords.json").exists()
        assert not (home / "postgres").exists()
        assert not embedded_postgres.is_running(home / "test")
    finally:
        embedded_postgres.remove(home / "test")


def test_down_where_nothing_runs_is_no_error(tmp_path):
    assert launch(tmp_path / "nowhere", 8000, "down").returncode == 0
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_roots_home_is_a_sentence_for_an_ordinary_user(capfd, monkeypatch):
    home = Path(tempfile.mkdtemp(prefix="convo-test-", dir="/tmp"))
    monkeypatch.setenv("CONVO_HOME", str(home))
    try:
        user = os.fork()
        if user == 0:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            os._exit(10 * main(["up"]) + commands.manage(["manage.py", "check"]))
        assert os.waitstatus_to_exitcode(os.waitpid(user, 0)[1]) == 11
    finally:
        home.rmdir()
    assert re.fullmatch(r"(CONVO_HOME .* belongs to root, and you are .*\n){2}", capfd.readouterr().err)


def test_somebody_elses_home_is_a_sentence_for_every_command(tmp_path):
    if os.geteuid() == 0:
        os.chown(tmp_path, 65_534, -1)
        home = tmp_path
    else:
        home = "/usr"
    for command in (["-m", "convo_project.launch", "up"], ["manage.py", "check"]):
        refused = subprocess.run(
            [sys.executable, *command],
            cwd=env.PROJECT,
            env=environment(home, 8000),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert refused.returncode == 1
        assert re.fullmatch(r"CONVO_HOME .* belongs to .*\n", refused.stderr)
