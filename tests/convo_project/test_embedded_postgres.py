"""The embedded PostgreSQL, with real servers: made, found again, survived, shared, and closed to others."""

import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path

import environ
import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from psycopg import sql

from convo_project import embedded_postgres, postgres_place, postgres_record, processes
from convo_project.home import CannotStartError, claim

AS_ROOT = os.geteuid() == 0
fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.timeout(600)  # initdb takes its time on a busy machine


@pytest.fixture
def home(used_home):
    """A home whose server has been made before, perhaps, and does not run."""
    yield used_home
    embedded_postgres.stop(used_home)


@pytest.fixture
def running_home(used_home):
    """A home whose server runs."""
    embedded_postgres.start(used_home)
    return used_home


def connect(home, **changes):
    settings = environ.Env.db_url_config(embedded_postgres.database_url(home))
    values = {
        "host": settings["HOST"],
        "port": settings["PORT"],
        "user": settings["USER"],
        "password": settings["PASSWORD"],
        "dbname": settings["NAME"],
    }
    return psycopg.connect(**(values | changes), autocommit=True)


def ask(home, query, **changes):
    with connect(home, **changes) as connection:
        return connection.execute(query).fetchone()


def remember(home, value):
    with connect(home) as connection:
        connection.execute("DROP TABLE IF EXISTS thing")
        connection.execute(sql.SQL("CREATE TABLE thing AS SELECT {} AS n").format(sql.Literal(value)))


def remembered(home):
    return ask(home, "SELECT n FROM thing")[0]


def server_pid(home):
    return int((postgres_place.place_of(home).data / "postmaster.pid").read_text().splitlines()[0])


def is_gone(pid):
    return not processes.command_line(pid)


def in_another_process(action):
    """Start `action` in a fork of ours; it must be joined."""
    process = fork.Process(target=action)
    process.start()
    return process


# --- making it --------------------------------------------------------------------------------------------------------


def test_the_application_gets_a_role_that_is_no_superuser_and_a_database_of_its_own(running_home):
    assert ask(
        running_home,
        "SELECT current_user, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles "
        "WHERE rolname = current_user",
    ) == ("convo", False, True, False, False)
    assert ask(
        running_home,
        "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database "
        "WHERE datname = current_database()",
    ) == ("convo", "convo", "UTF8")
    with connect(running_home) as connection:
        connection.execute("CREATE DATABASE test_convo")
    remember(running_home, 7)


def test_it_keeps_its_promises_to_the_data(running_home):
    for name, value in {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}.items():
        assert ask(running_home, f"SHOW {name}") == (value,)
    assert ask(running_home, "SELECT lower('ÄÉШ'), 'Ä' ILIKE 'ä'") == ("äéш", True)


@pytest.mark.parametrize("name", ["a b", "50%+c,d", "é" * 60])
def test_its_address_is_understood_whatever_the_folder_is_called(made_home, name):
    home = made_home(name)
    embedded_postgres.start(home)
    assert ask(home, "SELECT current_database()") == ("convo",)
    variables = embedded_postgres.client_environment(home)
    assert ask(home, "SELECT 1", host=variables["PGHOST"], password=variables["PGPASSWORD"]) == (1,)


def test_without_a_server_the_address_is_a_sentence(new_home):
    with pytest.raises(ImproperlyConfigured, match="make up"):
        embedded_postgres.database_url(new_home())


def test_a_half_made_one_is_made_again(new_home):
    home = new_home("a b 50%+é")
    place = postgres_place.place_of(home)
    postgres_place.folder(place.base, os.geteuid(), 0o711)
    (place.base / "data.unfinished").mkdir()
    (place.base / "data.unfinished" / "PG_VERSION").write_text("18\n")
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)
    assert not (place.base / "data.unfinished").exists()


def test_data_whose_passwords_are_lost_are_kept_aside(made_home, caplog):
    home = made_home()
    place = postgres_place.place_of(home)
    version = (place.data / "PG_VERSION").stat().st_ino
    (place.own / "passwords.json").unlink()
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)
    (aside,) = place.base.glob("data.2*")
    assert (aside / "PG_VERSION").stat().st_ino == version
    assert str(aside) in caplog.text


# --- closed to others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["convo", "postgres"])
@pytest.mark.parametrize("password", [None, "guess"])
def test_no_role_gets_in_without_its_password(running_home, monkeypatch, role, password):
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(running_home, user=role, password=password)


def test_it_listens_on_its_socket_alone_and_nobody_else_reaches_that(running_home):
    place = postgres_place.place_of(running_home)
    assert ask(running_home, "SHOW listen_addresses") == ("",)
    for folder in (place.data, place.socket, place.own):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((place.own / "passwords.json").stat().st_mode) == 0o600


def test_it_does_not_run_as_root_and_no_password_stands_in_its_arguments(running_home):
    pid = server_pid(running_home)
    assert processes.owner(pid) != 0
    assert str(postgres_place.place_of(running_home).data).encode() in processes.command_line(pid)
    assert embedded_postgres.client_environment(running_home)["PGPASSWORD"].encode() not in processes.command_line(pid)


def test_it_works_below_a_closed_folder_and_leaves_it_closed(tmp_path, new_home):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = new_home("closed/home")
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_log_carries_no_statements_and_no_values(running_home):
    with connect(running_home) as connection:
        connection.execute("CREATE TABLE person (phone text UNIQUE)")
        connection.execute("INSERT INTO person VALUES ('+4915112345')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO person VALUES ('+4915112345')")
    assert "4915112345" not in (running_home / "postgres" / "postgres.log").read_text()


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_an_ordinary_user_runs_it_too():
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="convo-test-", dir="/tmp"))
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    programs = find_spec(postgres_place.PACKAGE).submodule_search_locations[0]
    answers = fork.Queue()

    def as_nobody():
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        home = folder / "home"
        try:
            claim(home)
            if not os.access(programs, os.R_OK | os.X_OK):
                answers.put("the checkout lies below a closed folder")
                return
            embedded_postgres.start(home)
            answers.put(ask(home, "SELECT current_user"))
            answers.put(processes.owner(server_pid(home)))
        except BaseException as problem:
            answers.put(repr(problem))
        finally:
            embedded_postgres.stop(home)

    process = in_another_process(as_nobody)
    try:
        answer = answers.get(timeout=100)
        if isinstance(answer, str) and "closed folder" in answer:
            pytest.skip(answer)
        assert answer == ("convo",)
        assert answers.get(timeout=60) == nobody.pw_uid
    finally:
        process.join()
        shutil.rmtree(folder)


def test_a_machine_without_an_account_for_it_is_told_to_bring_its_own(monkeypatch):
    monkeypatch.setattr(postgres_place, "ACCOUNTS", ("no-such-account",))
    with pytest.raises(CannotStartError, match="DATABASE_URL"):
        postgres_place.unprivileged_account()


# --- finding it again -------------------------------------------------------------------------------------------------


def test_a_running_one_is_used_as_it_is(running_home):
    embedded_postgres.start(running_home)
    pid = server_pid(running_home)
    embedded_postgres.start(running_home)
    assert server_pid(running_home) == pid
    assert embedded_postgres.is_running(running_home)


def test_stopping_leaves_nothing_running_and_keeps_the_data(home):
    embedded_postgres.start(home)
    remember(home, 7)
    with connect(home):
        pid = server_pid(home)
        embedded_postgres.stop(home)
    assert is_gone(pid)
    assert not embedded_postgres.is_running(home)
    embedded_postgres.start(home)
    assert remembered(home) == 7


def test_data_survive_the_death_of_the_server_with_a_busy_backend_left_behind(home):
    embedded_postgres.start(home)
    remember(home, 7)
    busy, old = connect(home), server_pid(home)
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000000)")
    backend = busy.info.backend_pid
    os.kill(old, signal.SIGKILL)
    assert processes.wait_for(lambda: is_gone(old), 60)
    embedded_postgres.start(home)
    busy.close()
    assert is_gone(backend)
    assert server_pid(home) != old
    assert remembered(home) == 7


def test_data_survive_the_death_of_all_of_its_processes(home):
    embedded_postgres.start(home)
    remember(home, 7)
    with connect(home):
        place = postgres_place.place_of(home)
        processes.end(lambda: embedded_postgres._processes(place), [(signal.SIGKILL, 30)])
    embedded_postgres.start(home)
    assert remembered(home) == 7


def test_another_program_that_got_its_old_pid_is_left_alone(home):
    embedded_postgres.start(home)
    embedded_postgres.stop(home)
    (postgres_place.place_of(home).data / "postmaster.pid").write_text(
        f"{os.getpid()}\n/x\n1\n5432\n/x\n\n1 1\nready\n"
    )
    embedded_postgres.start(home)
    assert server_pid(home) != os.getpid()
    assert ask(home, "SELECT 1") == (1,)


def test_racing_starts_make_one_server(new_home):
    home = new_home()
    gate, answers = fork.Barrier(4), fork.Queue()

    def race():
        gate.wait()
        embedded_postgres.start(home)
        answers.put(server_pid(home))

    racers = [in_another_process(race) for _ in range(4)]
    assert len({answers.get(timeout=100) for _ in racers}) == 1
    for racer in racers:
        racer.join()


def test_a_server_out_of_sight_is_not_joined_by_a_second_one(running_home, monkeypatch):
    embedded_postgres.start(running_home)
    monkeypatch.setattr(embedded_postgres, "LOCK_SECONDS", 0.1)
    with monkeypatch.context() as blind:
        blind.setattr(embedded_postgres, "pids", list)
        blind.setattr(embedded_postgres, "command_line", lambda pid: b"")
        with pytest.raises(CannotStartError, match="another container"):
            embedded_postgres.start(running_home)
    assert ask(running_home, "SELECT 1") == (1,)


def test_two_homes_side_by_side_have_a_server_each(made_home):
    one, two = made_home("one"), made_home("two")
    for home in (one, two):
        embedded_postgres.start(home)
        remember(home, home.name)
    assert [remembered(one), remembered(two)] == ["one", "two"]
    embedded_postgres.stop(one)
    assert remembered(two) == "two"


def test_a_moved_home_keeps_its_data(made_home, new_home, tmp_path):
    home, moved = made_home("home"), tmp_path / "moved"
    embedded_postgres.start(home)
    remember(home, 7)
    embedded_postgres.stop(home)
    home.rename(moved)
    claim(new_home("moved"))
    embedded_postgres.start(moved)
    assert remembered(moved) == 7


def test_a_copied_home_has_its_own_data_or_is_refused_where_they_are_elsewhere(made_home, new_home):
    home, copied = made_home("home"), new_home("copied")
    embedded_postgres.start(home)
    remember(home, 7)
    embedded_postgres.stop(home)
    copied.rmdir()
    shutil.copytree(home, copied, ignore=lambda folder, names: {"socket"} & set(names))
    if AS_ROOT:
        with pytest.raises(CannotStartError, match=f"{home}, of which this is a copy"):
            embedded_postgres.start(copied)
        assert not postgres_place.place_of(copied).base.exists()
    else:
        embedded_postgres.start(copied)
        assert remembered(copied) == 7
    embedded_postgres.start(home)
    assert remembered(home) == 7


# --- data that are missing, or somebody's -----------------------------------------------------------------------------


def test_a_home_whose_data_are_gone_is_refused_and_not_started_empty(made_home):
    home = made_home()
    data = postgres_place.place_of(home).data
    away = data.with_name("away")
    data.rename(away)
    for _ in range(2):
        with pytest.raises(CannotStartError, match=r"restore a backup .* To begin anew without the data, delete"):
            embedded_postgres.start(home)
        assert not data.exists()
    away.rename(data)
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)


def test_a_home_that_was_prepared_and_has_no_record_is_refused_and_can_begin_anew(new_home):
    home = new_home()
    (home / "quickstart.json").write_text("{}")
    with pytest.raises(CannotStartError, match="has had a database"):
        embedded_postgres.start(home)
    (home / "quickstart.json").unlink()
    shutil.rmtree(home / "postgres")
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)


def test_one_whose_making_was_killed_before_its_last_step_is_made_again(made_home):
    home = made_home()
    place = postgres_place.place_of(home)
    place.data.rename(place.base / "data.unfinished")
    postgres_record.write(place, postgres_record.read(place), complete=False)
    embedded_postgres.start(home)
    assert ask(home, "SELECT 1") == (1,)
    embedded_postgres.stop(home)
    shutil.rmtree(place.data)
    with pytest.raises(CannotStartError, match="has had a database"):
        embedded_postgres.start(home)


@pytest.mark.skipif(not AS_ROOT, reason="only root keeps them elsewhere")
def test_roots_home_says_where_its_data_are(made_home):
    home = made_home()
    assert (home / "postgres" / "data-folder.txt").read_text() == f"{postgres_place.place_of(home).data}\n"


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_the_owner_of_the_data_decides_as_whom_it_runs(made_home, monkeypatch):
    home = made_home()
    place = postgres_place.place_of(home)
    other = next(pwd.getpwnam(name) for name in ("nobody", "daemon") if pwd.getpwnam(name).pw_uid != place.uid)
    for path in (place.data, place.socket, *place.data.rglob("*")):
        os.chown(path, other.pw_uid, other.pw_gid)
    embedded_postgres.start(home)
    assert processes.owner(server_pid(home)) == other.pw_uid
    remember(home, 7)
    embedded_postgres.stop(home)
    for path in (place.data, place.socket, *place.data.rglob("*")):
        os.chown(path, place.uid, place.account.pw_gid)
    embedded_postgres.start(home)
    assert processes.owner(server_pid(home)) == place.uid
    assert remembered(home) == 7


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files away")
@pytest.mark.parametrize(("uid", "says"), [(0, "belongs to root"), (54_321, "belongs to user 54321")])
def test_data_of_one_who_cannot_run_it_are_refused_with_what_to_do(made_home, uid, says):
    home = made_home()
    place = postgres_place.place_of(home)
    os.chown(place.data, uid, -1)
    with pytest.raises(CannotStartError, match=f"{says}.*chown -R postgres"):
        embedded_postgres.start(home)
    os.chown(place.data, place.uid, -1)


# --- sharing it -------------------------------------------------------------------------------------------------------


def test_whoever_needs_it_last_stops_it(home):
    with embedded_postgres.running(home):
        with embedded_postgres.running(home):
            assert ask(home, "SELECT 1") == (1,)
        assert ask(home, "SELECT 1") == (1,)
    assert not embedded_postgres.is_running(home)


def test_it_stays_while_another_process_needs_it_and_a_killed_one_does_not_count(home):
    started = fork.Event()

    def use():
        with embedded_postgres.running(home):
            started.set()
            signal.pause()

    user = in_another_process(use)
    assert started.wait(100)
    with embedded_postgres.running(home):
        pass
    embedded_postgres.stop_if_unused(home)
    assert embedded_postgres.is_running(home)
    user.kill()
    user.join()
    assert embedded_postgres.is_running(home)
    with embedded_postgres.running(home):
        pass
    assert not embedded_postgres.is_running(home)


def test_it_is_stopped_when_its_user_fails(home):
    with pytest.raises(ZeroDivisionError), embedded_postgres.running(home):
        1 / 0  # noqa: B018
    assert not embedded_postgres.is_running(home)


def test_a_home_deleted_meanwhile_is_no_error(made_home):
    home = made_home("deleted")
    with embedded_postgres.running(home):
        pid = server_pid(home)
        shutil.rmtree(home)
    assert is_gone(pid)


def test_who_comes_after_a_deleted_home_gets_a_server_that_its_last_user_does_not_stop(made_home, new_home):
    home = made_home("deleted")
    with embedded_postgres.running(home):
        pid = server_pid(home)
        shutil.rmtree(home)
        embedded_postgres.start(new_home("deleted"))
    assert is_gone(pid)
    assert ask(home, "SELECT 1") == (1,)
