"""A database of Convo before 0.3 is refused, and copied row by row into one of this version."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client as HttpClient

from conversations.models import ChannelAccount, ModelProvider
from conversations.services.events import numbering
from convo_project import embedded_postgres, env, pg_tools, processes
from convo_project.address import free_port
from convo_project.home import write_private
from tests import databases
from tests.convo_project import before_0_3
from tests.convo_project.before_0_3 import CLIENTS, FIRST_ID, LAST_ID, uuid
from tests.convo_project.running import environment, launch, manage
from tests.database_url import url_of

pytestmark = [pytest.mark.timeout(600), pytest.mark.django_db(transaction=True)]

NOT_COPIED = {
    "django_migrations": "the target has its own",
    "django_content_type": "made by migrations, numbered anew",
    "auth_permission": "made by migrations, numbered anew",
    "django_q_ormq": "tasks have no arguments: what they do is due on rows",
    "django_q_schedule": "made by setup_schedules",
    "django_q_task": "what tasks did",
}
NUMBERED_ANEW = {"content_type_id", "permission_id"}
LEADS = {
    "conversation_id": "conversations",
    "account_id": "channel_accounts",
    "channel_account_id": "channel_accounts",
    "turn_id": "conversation_turns",
    "erasure_id": "erasures",
}
IN_ALL = (
    "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' AND table_type LIKE 'BASE%'"
)
SEQUENCES = "SELECT sequencename::text, last_value FROM pg_sequences ORDER BY 1"


@pytest.fixture(scope="module")
def named(django_db_setup, django_db_blocker):
    """Settings of a database of the name on the tests' server, which is dropped afterwards."""
    made = []

    def name(short):
        made.append(f"{connection.settings_dict['NAME']}_{short}")
        return {**connection.settings_dict, "NAME": made[-1]}

    yield name
    with django_db_blocker.unblock():
        for each in made:
            databases.drop(each)


@pytest.fixture(scope="module")
def source(named, django_db_blocker):
    """A database of before 0.3, which tests only read."""
    database = named("before")
    with django_db_blocker.unblock():
        create(database)
    before_0_3.make(database, django_settings.CREDENTIALS_KEYS)
    return database


@pytest.fixture
def changed(named, source):
    """A copy of the source, in which a test changes something."""
    database = named("changed")
    create(database, template=source["NAME"])
    return database


@pytest.fixture
def target(named):
    """A migrated database without rows."""
    database = named("target")
    databases.make(database["NAME"])
    return database


@pytest.fixture
def empty(named):
    """A database without tables."""
    database = named("empty")
    create(database)
    return database


def create(database, template="template1"):
    databases.drop(database["NAME"])  # one that a killed run left
    with connection._nodb_cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{database["NAME"]}" TEMPLATE "{template}"')


@contextmanager
def connected(database):
    with pg_tools.connect(database) as found:
        yield found


def run(target, source, *more, **variables):
    """What `manage.py import_database` does with these databases; a source may be a text."""
    address = source if isinstance(source, str) else url_of(source)
    return manage(of(target) | variables, "import_database", "--from", address, *more)


def of(target):
    """The environment of a Convo with this database."""
    others = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**others, "DATABASE_URL": url_of(target)}


def copied(done):
    assert done.returncode == 0, done.stderr
    assert "The database is copied" in done.stdout


def refused(done, *words):
    """It failed with one sentence of these words."""
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def content(database):
    """All rows of all tables, and what the sequences gave away."""
    with connected(database) as found:
        tables = [table for (table,) in found.execute(IN_ALL).fetchall()]
        rows = {table: found.execute(f'SELECT to_jsonb(t) FROM "{table}" t').fetchall() for table in tables}
        return {table: sorted((row for (row,) in each), key=str) for table, each in rows.items()}, found.execute(
            SEQUENCES
        ).fetchall()


def assert_equal(source, target):
    """Every row of the source is in the target, with the same values, and no other is."""
    before, _ = content(source)
    after, _ = content(target)
    for table, rows in before.items():
        assert rows, f"the source has no row in {table}"
        if table in NOT_COPIED:
            continue
        new = {"client_id"} - set(rows[0])
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        if table == "message_tombstones":
            rows = [row for row in rows for _ in CLIENTS]
        ours, theirs = (sorted(map(without_numbers, each), key=str) for each in (rows, kept))
        assert ours == theirs, table
        if new and set(after[table][0]) >= new:
            assert all(row["client_id"] == client_of(table, row) for row in after[table]), table


def without_numbers(row):
    return {name: value for name, value in row.items() if name not in NUMBERED_ANEW}


def client_of(table, row):
    """The client whose row it must be."""
    if table == "message_tombstones":
        return row["client_id"]
    for column, other in LEADS.items():
        for number in CLIENTS:
            if row.get(column) == str(uuid(other, number)):
                return str(uuid("clients", number))
    if table == "chunk_corrections":
        return str(uuid("clients", row["chunk_id"] - FIRST_ID))
    # A chat that nobody's erasure removes is the oldest client's; a webhook to no account is nobody's.
    return str(uuid("clients", 1)) if table == "engine_chat_removals" else None


def test_every_kind_of_row_is_carried_over(source, target):
    untouched = content(source)
    done = run(target, source)
    copied(done)
    assert_equal(source, target)
    assert content(source) == untouched
    assert "  conversations: 2 rows" in done.stdout
    keys = {(row["client_id"], row["dedupe_key"]) for row in content(target)[0]["message_tombstones"]}
    assert len(keys) == len(CLIENTS) ** 2


def test_what_was_copied_works_and_obeys_the_new_rules(source, target):
    copied(run(target, source))
    with connected(target) as found:
        [(last,)] = found.execute("SELECT nextval(pg_get_serial_sequence('conversation_chunks', 'id'))").fetchall()
        assert last > LAST_ID
        chunk = (
            "INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content)"
            " VALUES (%s, %s, 9, 'ai', 'a')"
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            found.execute(chunk, [uuid("clients", 2), uuid("conversations", 1)])
        found.execute("DELETE FROM conversations WHERE client_id = %s", [uuid("clients", 1)])
        query = "SELECT count(*) FROM conversation_turns WHERE client_id = %s"
        assert [found.execute(query, [uuid("clients", n)]).fetchone()[0] for n in CLIENTS] == [0, 1]
    with databases.read(target):
        account = ChannelAccount.objects.get(client_id=uuid("clients", 2))
        assert account.credentials == {"secret": "of 2"}
        assert ModelProvider.objects.get(client_id=uuid("clients", 1)).headers == {"secret": "of 1"}


def test_permissions_and_content_types_are_found_by_name(source, target):
    copied(run(target, source))
    query = (
        "SELECT g.group_id, c.model, p.codename FROM auth_group_permissions g JOIN auth_permission p ON p.id ="
        " g.permission_id JOIN django_content_type c ON c.id = p.content_type_id ORDER BY 1"
    )
    with connected(target) as found:
        assert found.execute(query).fetchall() == [
            (FIRST_ID + 1, "contact", "view_contact"),
            (FIRST_ID + 2, "client", "view_client"),
        ]
        logged = (
            "SELECT c.model FROM django_admin_log l JOIN django_content_type c ON c.id = l.content_type_id"
            " ORDER BY l.id"
        )
        assert found.execute(logged).fetchall() == [("contact",), ("client",)]


def test_old_tools_send_no_files_to_people(source, target):
    copied(run(target, source))
    with connected(target) as found:
        assert found.execute("SELECT DISTINCT sends_files FROM tools").fetchall() == [(False,)]


OF_SESSIONS = "conversations", "conversation_chunks", "conversation_turns", "copilot_feedback", "chunk_corrections"


def test_rows_of_sessions_with_the_copilot_name_its_user(source, target):
    copied(run(target, source))
    with connected(target) as found:
        of_users = "SELECT id, login_id FROM contacts WHERE login_id IS NOT NULL ORDER BY 2"
        logins = [login for _, login in found.execute(of_users).fetchall()]
        assert logins
        for table in OF_SESSIONS:
            named = found.execute(f"SELECT DISTINCT login_id FROM {table} ORDER BY 1").fetchall()
            assert named == [(login,) for login in logins], table


def test_a_source_without_the_copilot_has_no_sessions_with_it(changed, target):
    with connected(changed) as found:
        found.execute("ALTER TABLE contacts DROP COLUMN login_id")
    copied(run(target, changed))
    with connected(target) as found:
        assert found.execute("SELECT DISTINCT login_id FROM conversation_chunks").fetchall() == [(None,)]


def test_columns_and_tables_that_the_first_version_did_not_have_get_their_defaults(changed, target):
    with connected(changed) as found:
        found.execute("DROP TABLE tool_calls, tools, mcp_servers")
        found.execute("ALTER TABLE clients DROP COLUMN weight, DROP COLUMN summary_provider_id, ADD COLUMN own text")
        found.execute("ALTER TABLE channel_accounts DROP COLUMN silence")
        found.execute("DROP TABLE events, event_deliveries, event_endpoints, event_notes, event_numbering, attachments")
        found.execute("DELETE FROM django_migrations WHERE name ~ '^(0080|0122)'")
    done = run(target, changed)
    copied(done)
    assert "clients.own" in done.stdout
    with connected(target) as found:
        assert found.execute("SELECT DISTINCT weight FROM clients").fetchall() == [(1,)]
        assert found.execute("SELECT count(*), min(silence) > '0' FROM channel_accounts").fetchall() == [(2, True)]
    with databases.read(target):
        assert numbering.number_all() == 0, "what was said before there were events is none"


def test_what_transactions_of_the_source_may_still_write_is_not_waited_for(changed, target):
    with connected(changed) as found:
        found.execute("UPDATE event_numbering SET doubt_upto = 9, doubt_holders = '[\"3/17\"]'")
    copied(run(target, changed))
    with connected(target) as found:
        kept = "SELECT numbered, doubt_upto, doubt_holders FROM event_numbering"
        assert set(map(str, found.execute(kept).fetchall())) == {"('{[0,5001)}', None, [])"}


def test_one_that_was_interrupted_is_repeated(source, target):
    with connected(target) as lock, connected(target) as watch:
        lock.autocommit = False
        lock.execute("LOCK TABLE conversation_turns")
        importing = subprocess.Popen(
            [sys.executable, "manage.py", "import_database", "--from", url_of(source)],
            cwd=env.PROJECT,
            env=of(target),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
        assert processes.wait_for(lambda: watch.execute(waiting, [target["NAME"]]).fetchone(), 100)
        assert watch.execute("SELECT count(*) FROM conversation_chunks").fetchone() == (2,)
        refused(run(target, source), "Another import")
        [(pid,)] = watch.execute(waiting, [target["NAME"]]).fetchall()
        watch.execute("SELECT pg_terminate_backend(%s)", [pid])
        _, said = importing.communicate(timeout=100)
        assert importing.returncode == 1
        assert "run the same command again" in said.replace("\n", " ")
        assert "Traceback" not in said
        lock.rollback()
        assert watch.execute("SELECT count(*) FROM conversation_turns").fetchone() == (0,)
    refused(manage(of(target), "sweep"), "did not end", "manage.py import_database again")
    done = run(target, source)
    copied(done)
    assert "  conversation_chunks: 0 rows, 2 were there" in done.stdout
    assert_equal(source, target)
    assert manage(of(target), "sweep").returncode == 0


def test_repeating_a_whole_one_changes_no_row(source, target):
    copied(run(target, source))
    before, _ = content(target)
    copied(run(target, source))
    assert content(target)[0] == before


def test_files_of_messages_that_lie_elsewhere_are_said(source, target):
    done = run(target, source)
    copied(done)
    assert "2 files of messages are not in the database" in done.stdout
    assert "/media" in done.stdout.replace("\n", "")


def test_a_rehearsal_counts_and_changes_nothing(source, target):
    before = content(source), content(target)
    done = run(target, source, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "  message_tombstones: 4 rows" in done.stdout
    assert "  contacts: 4 rows" in done.stdout
    assert "Nothing was changed" in done.stdout
    assert (content(source), content(target)) == before


def test_a_source_that_is_none_is_refused(source, target, empty, changed):
    refused(run(target, empty), "is no database of Convo")
    with connected(empty) as found:
        found.execute("CREATE TABLE django_migrations (app text, name text)")
        found.execute("INSERT INTO django_migrations VALUES ('auth', '0001_initial')")
    refused(run(target, empty), "is no database of Convo")
    refused(run(target, target), "0.3 or newer already", "manage.py backup")
    with connected(changed) as found:
        found.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('memory', '0006_dreams', now())")
        refused(run(target, changed), "memory.0006_dreams", "does not know")
        found.execute("DELETE FROM django_migrations WHERE app = 'memory' OR name > '0002'")
        found.execute("UPDATE django_migrations SET name = '0002_cascade_in_the_database' WHERE name LIKE '%squashed%'")
        refused(run(target, changed), "older than Convo 0.1")
    refused(run(target, "mysql://a:b@c/d"), "must begin with postgres://")
    refused(run(target, "postgres://convo:hidden@db:port/convo"), "--from is no address")
    refused(run(target, "/no/such/home"), "neither an address", "nor a CONVO_HOME")
    away = run(target, f"postgres://convo:hidden@127.0.0.1:{free_port()}/convo")
    refused(away, "cannot be reached")
    assert "hidden" not in away.stderr


def test_a_target_that_would_mix_or_cannot_take_the_rows_is_refused(source, target, empty):
    refused(run(empty, source), "lacks migrations", "manage.py migrate")
    refused(run(source, source), "of Convo 0.1 or 0.2")
    with connected(target) as found:
        user = (
            "INSERT INTO auth_user (id, username, password, is_superuser, first_name, last_name, email, is_staff,"
            " is_active, date_joined) VALUES (101, 'root', '', true, '', '', '', true, true, now())"
        )
        found.execute(user)
        refused(run(target, source), "users that are not in the source (root)", "new database")
        found.execute("DELETE FROM auth_user")
        found.execute("INSERT INTO clients (id, name, sub_domain) VALUES (gen_random_uuid(), 'Demo', 'demo')")
        refused(run(target, source), "clients that are not in the source (demo)", "secrets.env", "manage.py migrate")
    assert content(target)[0]["conversations"] == []


def test_a_target_that_was_used_since_is_refused(source, target):
    copied(run(target, source))
    with connected(target) as found:
        found.execute("UPDATE contacts SET name = 'Ann' WHERE id = %s", [uuid("contacts", 1)])
    refused(run(target, source), "1 rows of contacts are here with other contents", "new database")
    [ann] = [row for row in content(target)[0]["contacts"] if row["id"] == str(uuid("contacts", 1))]
    assert ann["name"] == "Ann"


def test_a_row_that_breaks_a_rule_is_named_by_the_rule(changed, target):
    with connected(changed) as found:
        found.execute("UPDATE conversations SET client_id = %s", [uuid("clients", 2)])
    done = run(target, changed)
    refused(done, "A row of conversations", "conversations_contact_id_stays")
    assert content(target)[0]["conversations"] == []
    assert len(content(target)[0]["contacts"]) == 4


def test_credentials_that_no_key_decrypts_are_refused_unless_they_are_known_to_be_lost(source, target):
    other = Fernet.generate_key().decode()
    refused(run(target, source, CREDENTIALS_KEYS=other), "14 stored credentials", "CREDENTIALS_KEYS", "--keys-are-lost")
    assert content(target)[0]["clients"] == []
    both = ",".join([other, *django_settings.CREDENTIALS_KEYS])
    assert run(target, source, "--dry-run", CREDENTIALS_KEYS=both).returncode == 0
    done = run(target, source, "--keys-are-lost", CREDENTIALS_KEYS=other)
    copied(done)
    assert "must be entered again" in done.stdout


# --- the refusal of a database of before 0.3 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["manage.py", "migrate"],
        ["manage.py", "dispatch"],
        ["manage.py", "qcluster"],
        ["manage.py", "sweep"],
        ["-m", "convo_project.web"],
        ["-m", "convo_project.prepare"],
    ],
)
def test_nothing_runs_on_it(source, command):
    before = content(source)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=env.PROJECT,
        env=of(source),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    refused(done, "of Convo 0.1 or 0.2", "nothing was touched", "manage.py import_database --from")
    assert content(source) == before


def test_readyz_says_so(source):
    with databases.read(source):
        answer = HttpClient().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["code"] == "earlier_version"
    assert "manage.py import_database" in answer.json()["error"]


@pytest.fixture
def old_home(made_home):
    """A home of before 0.3, whose server does not run."""
    home = made_home("old").resolve()
    key = Fernet.generate_key().decode()
    write_private(home / "secrets.env", f"SECRET_KEY=old\nCREDENTIALS_KEYS={key}\n")
    write_private(home / "quickstart.json", '{"api_key": "ck_old", "admin_password": "old"}\n')
    with embedded_postgres.running(home):
        before_0_3.make(at(home), [key])
    return home


def at(home):
    given = embedded_postgres.client_environment(home)
    return {"HOST": given["PGHOST"], "PORT": given["PGPORT"], "USER": given["PGUSER"]} | {
        "PASSWORD": given["PGPASSWORD"],
        "NAME": given["PGDATABASE"],
    }


def test_make_up_refuses_such_a_home_and_leaves_it(old_home):
    def seen():
        with embedded_postgres.running(old_home):
            files = {each: (old_home / each).read_text() for each in ("secrets.env", "quickstart.json")}
            return content(at(old_home)), files

    before = seen()
    done = launch(old_home, free_port(), "up")
    assert done.returncode == 1
    assert "of Convo 0.1 or 0.2" in done.stderr
    assert "manage.py import_database --from" in done.stderr
    assert "Traceback" not in done.stderr
    assert not embedded_postgres.is_running(old_home)
    assert seen() == before


def test_a_home_is_copied_into_a_new_one(old_home, made_home):
    home = made_home("new").resolve()
    new = environment(home, free_port())
    with embedded_postgres.running(home):
        databases.fill(at(home))
        refused(
            manage(new, "import_database", "--from", str(old_home)),
            "14 stored credentials",
            f"{old_home}/secrets.env has them",
        )
        (home / "secrets.env").write_text((old_home / "secrets.env").read_text())
        photo = Path("media", "a client", "a file", "photo.jpg")
        (old_home / photo).parent.mkdir(parents=True)
        (old_home / photo).write_bytes(b"photo")
        done = manage(new, "import_database", "--from", str(old_home))
        copied(done)
        with embedded_postgres.running(old_home):
            assert_equal(at(old_home), at(home))
        assert (home / photo).read_bytes() == b"photo"
        assert (home / "quickstart.json").read_text() == (old_home / "quickstart.json").read_text()
        assert (home / "quickstart.json").stat().st_mode & 0o077 == 0
        assert "SECRET_KEY" not in done.stdout
    assert not embedded_postgres.is_running(old_home)


def test_a_backup_of_it_can_be_made_and_restored_elsewhere(old_home, new_home, tmp_path):
    done = manage(environment(old_home, free_port()), "backup", "--to", str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    home = new_home("restored").resolve()
    done = manage(environment(home, free_port()), "restore", str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    assert "manage.py import_database" in done.stdout
    with embedded_postgres.running(home), embedded_postgres.running(old_home):
        assert content(at(home)) == content(at(old_home))
