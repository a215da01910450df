"""Backup and restore as a user runs them: a drill under load, and what hinders a restore changes nothing."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading

import environ
import psycopg
import pytest
import requests
from cryptography.fernet import Fernet

from convo_project import backup, embedded_postgres, env, processes
from convo_project.address import free_port
from tests.convo_project.running import Up, environment, manage

pytestmark = pytest.mark.timeout(900)  # the whole of Convo, twice, on a machine that may be slow
TOKEN = "a-token-of-a-provider"
PICTURE = "client/attachment/claim"  # a file's name in the media storage


class Crowd:
    """People who write, one message after another, from entering the block to leaving it. `taken` is what was
    acknowledged."""

    def __init__(self, up, people=4):
        self.up, self.over, self.taken = up, threading.Event(), []
        self.threads = [threading.Thread(target=self.writes, args=(f"person {n}",)) for n in range(people)]

    def writes(self, person):
        facts, number = self.up.quickstart(), 0
        headers = {"X-Service-API-Key": facts["api_key"]}
        while not self.over.wait(0.02):
            text = f"{person} says {number}"
            said = {"client_id": facts["client_id"], "user_id": person, "message": text, "message_id": text}
            answer = requests.post(f"{facts['base_url']}/webhooks/sms/inbound", json=said, headers=headers, timeout=100)
            if answer.status_code == 200:
                self.taken.append((answer.json()["data"]["conversation_id"], text))
                number += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        assert processes.wait_for(lambda: len(self.taken) > 40, 100)
        return self

    def __exit__(self, *error):
        self.over.set()
        for thread in self.threads:
            thread.join()


class Drill:
    """A backup that was made while people wrote."""

    def __init__(self, home, folder):
        self.home, self.folder = home, folder
        up = Up(home, free_port(), WEB_WORKERS="1", OPENAI_TIMEOUT_SECONDS="61")
        try:
            self.facts = up.quickstart()
            self.add_an_account(up)
            with Crowd(up) as crowd:
                self.before = list(crowd.taken)
                given = environment(home, up.port) | {"OPENAI_TIMEOUT_SECONDS": "61"}
                self.made = manage(given, "backup", "--to", str(folder))
                assert processes.wait_for(lambda: len(crowd.taken) > len(self.before), 100)
        finally:
            assert up.stop() == 0

    def add_an_account(self, up):
        """With credentials, which only the keys make readable."""
        code = (
            "from conversations.models import ChannelAccount, Client; "
            f"ChannelAccount.objects.create(client=Client.objects.get(pk={self.facts['client_id']!r}), channel='sms',"
            f" provider='plivo', address='51999', credentials={{'auth_token': {TOKEN!r}}}); "
            "import io; from conversations.services.core import files; "
            f"files.save({PICTURE!r}, io.BytesIO(b'a picture'))"
        )
        assert manage(environment(up.home, up.port), "shell", "-v", "0", "-c", code).returncode == 0


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drill").resolve()
    yield Drill(folder / "home", folder / "backups" / "one")
    embedded_postgres.remove(folder / "home")


@pytest.fixture
def place(tmp_path):
    """A home that is not there yet."""
    home = tmp_path.resolve() / "restored"
    yield home
    embedded_postgres.remove(home)


def restore(home, folder, *more, **variables):
    return manage(environment(home, 8000) | variables, "restore", str(folder), *more)


def refused(done, *words):
    """It failed with one sentence of these words."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


def said_in(facts, conversation_id):
    """All texts of a conversation, by the API."""
    headers, found, after = {"X-Service-API-Key": facts["api_key"]}, set(), ""
    while True:
        address = f"{facts['base_url']}/conversations/{conversation_id}/chunks?limit=100{after}"
        data = requests.get(address, headers=headers, timeout=100).json()["data"]
        found.update(each["content"] for each in data["items"])
        if not data["next"]:
            return found
        after = f"&cursor={data['next']}"


def test_a_backup_under_load_has_all_that_was_acknowledged_and_starts_elsewhere(drill, place):
    assert drill.made.returncode == 0, drill.made.stderr
    done = restore(place, drill.folder)
    assert done.returncode == 0, done.stderr
    assert "public.conversations" in done.stdout
    up = Up(place, free_port(), WEB_WORKERS="1")
    try:
        facts = up.quickstart()
        assert (facts["api_key"], facts["admin_password"]) == (drill.facts["api_key"], drill.facts["admin_password"])
        found = {each: said_in(facts, each) for each in {conversation_id for conversation_id, _ in drill.before}}
        assert [said for said in drill.before if said[1] not in found[said[0]]] == []
        assert len(drill.before) > 40
        assert (place / "media" / PICTURE).read_bytes() == b"a picture"

        again = up.send("Are you there again?")["conversation_id"]
        where = f"{facts['base_url']}/conversations/{again}"
        headers = {"X-Service-API-Key": facts["api_key"]}

        def answered():
            return requests.get(where, headers=headers, timeout=100).json()["data"]["chunks"][-1]["role"] == "ai"

        assert processes.wait_for(answered, 100)
        code = (
            "from conversations.models import ChannelAccount; "
            "print(ChannelAccount.objects.get(address='51999').credentials)"
        )
        assert TOKEN in manage(environment(place, up.port), "shell", "-v", "0", "-c", code).stdout
    finally:
        assert up.stop() == 0


def test_it_is_private_and_says_what_it_does_not_have(drill):
    for path in (drill.folder, *drill.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert "Keep the values of: OPENAI_TIMEOUT_SECONDS" in drill.made.stdout
    assert TOKEN.encode() not in (drill.folder / "database.dump").read_bytes()
    assert [path.name for path in drill.folder.parent.iterdir()] == [drill.folder.name]


def test_a_rehearsal_checks_everything_and_changes_nothing(drill, place):
    done = restore(place, drill.folder, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"into {place}" in done.stdout
    assert "Nothing was changed" in done.stdout
    assert not place.exists()


def test_a_home_that_holds_data_is_refused(drill):
    before = (drill.home / "secrets.env").read_bytes()
    for more in ([], ["--dry-run"]):
        refused(restore(drill.home, drill.folder, *more), "holds data", "set CONVO_HOME to a new folder")
    assert (drill.home / "secrets.env").read_bytes() == before


def test_a_database_that_holds_data_is_refused(drill, place):
    with embedded_postgres.running(drill.home):
        url = embedded_postgres.database_url(drill.home)
        for more in ([], ["--dry-run"]):
            refused(restore(place, drill.folder, *more, DATABASE_URL=url), "holds", "tables", "empty one")
    assert not (place / "secrets.env").exists()


def test_an_empty_database_of_ones_own_takes_a_backup_once(drill, place):
    with embedded_postgres.running(drill.home):
        url = embedded_postgres.database_url(drill.home)
        with psycopg.connect(**connection_to(url), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS taken")
            connection.execute("CREATE DATABASE taken")
        own = url.rpartition("/")[0] + "/taken"
        done = restore(place, drill.folder, "--dry-run", DATABASE_URL=own)
        assert (done.returncode, place.exists()) == (0, False), done.stderr
        done = restore(place, drill.folder, DATABASE_URL=own)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(**connection_to(own), autocommit=True) as connection:
            texts = {text for (text,) in connection.execute("SELECT content FROM conversation_chunks").fetchall()}
        assert {text for _, text in drill.before} <= texts
        assert not (place / "postgres").exists()
        refused(restore(place.with_name("second"), drill.folder, DATABASE_URL=own), "holds", "tables")


def connection_to(url):
    found = environ.Env.db_url_config(url)
    return {"host": found["HOST"], "port": found["PORT"], "user": found["USER"], "password": found["PASSWORD"]} | {
        "dbname": found["NAME"]
    }


def shorten(folder):
    (folder / "database.dump").write_bytes((folder / "database.dump").read_bytes()[:-1])


def change_a_byte(folder):
    content = (folder / "database.dump").read_bytes()
    (folder / "database.dump").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose_the_keys(folder):
    (folder / "secrets.env").unlink()


def break_the_manifest(folder):
    (folder / "manifest.json").write_text("[1]")


def leave_the_folder(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {"../../home/secrets.env": [1, "x"]}}))


def come_from_the_future(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["migrations"].append("conversations.9999_flying_cars")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shorten, "damaged: database.dump"),
        (change_a_byte, "damaged: database.dump"),
        (lose_the_keys, "secrets.env is missing"),
        (break_the_manifest, "manifest.json is damaged"),
        (leave_the_folder, "is missing"),
        (come_from_the_future, "newer than this"),
        (shutil.rmtree, "is no backup"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused(drill, place, tmp_path, damage, says):
    copied = tmp_path / "copied"
    shutil.copytree(drill.folder, copied)
    damage(copied)
    refused(restore(place, copied), says)
    assert not place.exists()


def test_other_keys_in_the_environment_are_refused(drill, place):
    other = Fernet.generate_key().decode()
    refused(restore(place, drill.folder, CREDENTIALS_KEYS=other), "CREDENTIALS_KEYS is set to something else")
    assert not place.exists()


def test_a_restore_that_was_killed_starts_nothing_and_can_be_run_again(drill, place):
    killed = subprocess.Popen(
        [sys.executable, "manage.py", "restore", str(drill.folder)],
        cwd=env.PROJECT,
        env=environment(place, 8000),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    for line in killed.stdout:
        if line.startswith("  public."):
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    refused(manage(environment(place, 8000), "check"), "manage.py restore")
    done = restore(place, drill.folder)
    assert done.returncode == 0, done.stderr
    done = manage(environment(place, 8000), "check", "--database", "default")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("target", "says"), [("taken", "Name a new folder"), ("file/below", "cannot be written")])
def test_a_backup_replaces_nothing(made_home, tmp_path, target, says):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    refused(manage(environment(made_home(), 8000), "backup", "--to", str(tmp_path / target)), says)
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_database_without_tables_is_refused_and_leaves_no_part(made_home, tmp_path):
    home = made_home()
    refused(manage(environment(home, 8000), "backup", "--to", str(tmp_path / "to" / "one")), "no tables of Convo")
    assert list((tmp_path / "to").iterdir()) == []


def test_kept_files_are_copied_or_said_to_be_missing(tmp_path, settings):
    settings.MEDIA_ROOT = tmp_path / "media"
    (tmp_path / "media" / "a").mkdir(parents=True)
    (tmp_path / "media" / "a" / "picture.png").write_bytes(b"picture")
    assert backup._copy_files(tmp_path / "to") == []
    assert (tmp_path / "to" / "files" / "a" / "picture.png").read_bytes() == b"picture"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "storages.backends.s3.S3Storage"}}
    [sentence] = backup._copy_files(tmp_path / "elsewhere")
    assert "S3Storage keeps them" in sentence
