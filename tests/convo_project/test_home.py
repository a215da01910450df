"""Convo's own folder: whose it is, what is private in it, and secrets that are generated once."""

import multiprocessing
import os
import pwd
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from convo_project.home import CannotStartError, claim, ensure_secrets, locked, try_lock, write_private


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
