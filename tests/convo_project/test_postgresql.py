"""The database backend sees a dead connection without asking the server, and Django replaces it."""

import environ
import pytest
from django.db.utils import ConnectionHandler, OperationalError

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
