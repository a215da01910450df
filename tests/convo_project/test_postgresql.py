"""The database backend sees a dead connection without asking the server, and Django replaces it."""

from contextlib import nullcontext

import environ
import pytest
from django.db.utils import ConnectionHandler, IntegrityError, InternalError, OperationalError

from convo_project import embedded_postgres
from convo_project.processes import wait_for


@pytest.fixture
def home(used_home):
    embedded_postgres.start(used_home)
    return used_home


@pytest.fixture
def databases(home, django_db_blocker):
    """Two connections of Django's to one server: `default`, and `other` to look at it from outside."""
    settings = {
        **environ.Env.db_url_config(embedded_postgres.database_url(home)),
        "ENGINE": "convo_project.postgresql",
        "CONN_MAX_AGE": 3600,
        "CONN_HEALTH_CHECKS": True,
    }
    handler = ConnectionHandler({"default": dict(settings), "other": dict(settings)})
    with django_db_blocker.unblock():
        yield handler
    handler.close_all()


def ask(connection, query, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchone()[0]


def kill(databases, backend):
    """End the backend of `default`; our end of the socket knows."""
    assert ask(databases["other"], "SELECT pg_terminate_backend(%s, 30000)", backend)
    assert wait_for(lambda: not databases["default"].is_usable(), 30)


def next_request(connection):
    """What Django does between two requests."""
    connection.close_if_unusable_or_obsolete()


def test_a_living_connection_is_usable_and_is_not_asked(databases):
    backend = ask(databases["default"], "SELECT pg_backend_pid()")
    assert databases["default"].is_usable()
    last = ask(databases["other"], "SELECT query FROM pg_stat_activity WHERE pid = %s", backend)
    assert last == "SELECT pg_backend_pid()"


def test_it_is_kept_from_request_to_request(databases):
    backend = ask(databases["default"], "SELECT pg_backend_pid()")
    next_request(databases["default"])
    assert ask(databases["default"], "SELECT pg_backend_pid()") == backend


def test_a_connection_whose_backend_was_ended_is_replaced_at_the_next_request(databases):
    backend = ask(databases["default"], "SELECT pg_backend_pid()")
    next_request(databases["default"])
    kill(databases, backend)
    assert ask(databases["default"], "SELECT pg_backend_pid()") != backend


def test_one_that_failed_in_use_is_replaced_as_well(databases):
    backend = ask(databases["default"], "SELECT pg_backend_pid()")
    kill(databases, backend)
    with pytest.raises(OperationalError):
        ask(databases["default"], "SELECT 1")
    next_request(databases["default"])
    assert ask(databases["default"], "SELECT pg_backend_pid()") != backend


def test_a_failed_transaction_is_not_usable(databases):
    connection = databases["default"]
    connection.ensure_connection()
    connection.connection.autocommit = False
    with connection.connection.cursor() as cursor, pytest.raises(Exception, match="division by zero"):
        cursor.execute("SELECT 1 / 0")
    assert not connection.is_usable()
    connection.connection.rollback()
    assert connection.is_usable()


def test_a_closed_one_and_none_at_all_are_not_usable(databases):
    connection = databases["default"]
    assert not connection.is_usable()
    connection.ensure_connection()
    connection.connection.close()
    assert not connection.is_usable()


def test_a_restart_of_the_server_is_noticed(databases, home):
    ask(databases["default"], "SELECT 1")
    next_request(databases["default"])
    embedded_postgres.stop(home)
    embedded_postgres.start(home)
    assert ask(databases["default"], "SELECT 1") == 1


# --- a cluster, whose server lost its connection to another -----------------------------------------------------------
FAILS = """
    CREATE FUNCTION pg_temp."while executing command on worker:5432"(state text, sentence text) RETURNS int
    LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = state, MESSAGE = sentence; END $$"""
FAIL = """SELECT pg_temp."while executing command on worker:5432"(%s, %s)"""


@pytest.mark.parametrize(
    ("state", "sentence", "error"),
    [
        ("XX000", "server closed the connection unexpectedly", OperationalError),
        ("XX000", "could not receive data from server: Connection reset by peer", OperationalError),
        ("XX000", "tuple concurrently updated", InternalError),
        ("08006", "connection to the remote node failed", OperationalError),
        ("23505", "duplicate key", IntegrityError),
    ],
)
def test_a_server_that_was_lost_under_a_statement_is_as_a_lost_connection(databases, state, sentence, error):
    connection = databases["default"]
    with connection.cursor() as cursor:
        cursor.execute(FAILS)
    with pytest.raises(error):
        ask(connection, FAIL, state, sentence)
    assert ask(connection, "SELECT 1") == 1


def test_a_fault_of_this_server_itself_stays_one(databases):
    with pytest.raises(InternalError), databases["default"].cursor() as cursor:
        cursor.execute(
            "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'server closed the connection'; END $$"
        )


LOST = "RAISE WARNING 'failed to commit transaction on worker:5432'; "
REFUSED = "RAISE WARNING USING ERRCODE = '23503', MESSAGE = 'violates foreign key constraint'; "
FAULT = "RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'could not commit transaction for shard 1'; "


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (LOST, OperationalError),
        (LOST + FAULT, OperationalError),
        (REFUSED + LOST + FAULT, IntegrityError),
        (FAULT, InternalError),
        ("RAISE WARNING 'there is little space left'; ", None),
    ],
)
def test_a_commit_that_another_server_may_not_have_done_is_no_success(databases, said, error):
    connection = databases["default"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE written (id int)")
        cursor.execute(
            f"CREATE FUNCTION pg_temp.say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {said} RETURN NULL; END $$"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION pg_temp.say()"
        )
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO written VALUES (1)")
    with pytest.raises(error) if error else nullcontext():
        connection.commit()
    connection.rollback()
    connection.commit()
