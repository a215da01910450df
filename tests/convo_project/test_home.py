"""Convo's own folder: whose it is, what is private in it, and secrets that are generated once."""

import multiprocessing
import os
import pwd
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from convo_project.home import CannotStartError, claim, ensure_secrets, locked, open_lock, try_lock, write_private
from convo_project.postgres_place import folder
from convo_project.prepare import write_quickstart


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def secrets_in(home):
    return dict(line.split("=", 1) for line in (home / "secrets.env").read_text().splitlines())


def test_a_new_home_is_ours_alone(tmp_path):
    claim(tmp_path / "a" / "home")
    assert mode(tmp_path / "a" / "home") == 0o700


def test_somebody_elses_home_is_refused_with_both_names(tmp_path):
    if os.geteuid() == 0:
        os.chown(tmp_path, pwd.getpwnam("nobody").pw_uid, -1)
        home, owner = tmp_path, "nobody"
    else:
        home, owner = Path("/"), "root"
    with pytest.raises(CannotStartError, match=rf"belongs to {owner}.*CONVO_HOME"):
        claim(home)


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStartError, match="Set CONVO_HOME to a folder of your own"):
        claim(tmp_path / "file" / "home")


def test_secrets_are_generated_once_and_only_for_us(tmp_path):
    ensure_secrets(tmp_path)
    first = secrets_in(tmp_path)
    ensure_secrets(tmp_path)
    assert secrets_in(tmp_path) == first
    assert mode(tmp_path / "secrets.env") == 0o600
    assert len(first["SECRET_KEY"]) >= 50
    Fernet(first["CREDENTIALS_KEYS"])


def test_what_stands_in_the_file_of_secrets_is_kept(tmp_path):
    (tmp_path / "secrets.env").write_text("SECRET_KEY=mine\nCRON_SECRET=also mine\n")
    ensure_secrets(tmp_path)
    found = secrets_in(tmp_path)
    assert (found["SECRET_KEY"], found["CRON_SECRET"]) == ("mine", "also mine")
    assert found["CREDENTIALS_KEYS"]


def test_racing_starts_agree_on_the_secrets(tmp_path):
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(8), context.Queue()

    def race():
        gate.wait()
        ensure_secrets(tmp_path)
        answers.put(secrets_in(tmp_path)["SECRET_KEY"])

    racers = [context.Process(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    assert len({answers.get(timeout=60) for _ in racers}) == 1
    for racer in racers:
        racer.join()


def test_a_private_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_ends_with_its_holder(tmp_path):
    holder = os.fork()
    if holder == 0:
        try_lock(tmp_path / "lock")
        os.kill(os.getpid(), 9)
    os.waitpid(holder, 0)
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    os.close(first)
    with locked(tmp_path / "lock"):
        assert try_lock(tmp_path / "lock") is None


DEMO = ("client_id", "sub_domain", "api_key", "admin_username", "admin_password")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_what_is_private_is_private_whatever_the_umask(tmp_path, umask):
    """The home, its secrets, its lock, and a file with keys, such as quickstart.json."""
    home = tmp_path / "home"
    old = os.umask(umask)
    try:
        claim(home)
        home.chmod(0o700)  # a umask may take from the owner too, which is none of ours
        ensure_secrets(home)
        write_quickstart(home, dict.fromkeys(DEMO, "secret"))
        os.close(open_lock(home / "lock"))
    finally:
        os.umask(old)
    files = {path.name: mode(path) for path in home.iterdir()}
    assert {"secrets.env", "quickstart.json", "lock"} <= set(files)
    assert {name: bits for name, bits in files.items() if bits & 0o077} == {}
    assert (files["secrets.env"], files["quickstart.json"]) == (0o600, 0o600)


def test_a_new_home_is_ours_alone_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        claim(tmp_path / "home")
    finally:
        os.umask(old)
    assert mode(tmp_path / "home") == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_a_folder_of_the_server_has_its_mode_whatever_the_umask(tmp_path, umask):
    old = os.umask(umask)
    try:
        for number, wanted in enumerate((0o700, 0o711)):
            folder(tmp_path / str(number), os.geteuid(), wanted)
            folder(tmp_path / str(number), os.geteuid(), wanted)
            assert mode(tmp_path / str(number)) == wanted
    finally:
        os.umask(old)


def test_a_folder_that_others_could_enter_is_closed_to_them(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o777)
    folder(tmp_path / "own", os.geteuid(), 0o700)
    assert mode(tmp_path / "own") == 0o700


def test_a_link_is_no_folder_and_no_lock(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStartError, match="belongs to somebody else"):
        folder(tmp_path / "link", os.geteuid(), 0o700)
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        open_lock(tmp_path / "lock")
    assert not (tmp_path / "victim").exists()
