"""kill -9 of PostgreSQL under load: web and dispatcher go on by themselves when it is back, and nothing is doubled."""

from __future__ import annotations

import os
import signal

import pytest
from django.db import OperationalError, connection

from conversations.models import Message
from conversations.services.core import sql
from convo_project import processes
from tests.crash import stage
from tests.crash.stage import Crowd, Postgres


@pytest.fixture
def postgres(tmp_path):
    return Postgres(tmp_path / "home")


@pytest.fixture
def convo(postgres, django_db_blocker):
    postgres.home.mkdir(mode=0o700)
    with (
        django_db_blocker.unblock(),
        postgres.running() as url,
        stage.Convo(url, postgres.home, LEASE_SECONDS="2") as convo,
    ):
        yield convo


def test_after_its_recovery_everything_is_there_once_and_answered(convo, postgres):
    web, dispatcher = convo.start_web(), convo.start_dispatcher()
    workers = web.children()
    with Crowd(convo) as crowd:
        crowd.goes_on()
        postgres.kill()
        postgres.start()
        crowd.goes_on()
        postgres.kill_a_backend()
        crowd.goes_on()
    convo.becomes_quiet()

    assert crowd.interrupted or crowd.refusals, "nobody noticed: this tried nothing"
    assert {answer.status_code for answer in crowd.refusals} <= {500, 503}
    assert [answer.text for answer in crowd.refusals if not stage.is_envelope(answer)] == []
    assert dispatcher.is_alive
    assert web.children() == workers
    crowd.assert_heard_once_each()
    crowd.assert_answered()
    assert set(Message.objects.values_list("status", flat=True)) == {"sent", "delivered"}
    convo.assert_everything_went_once()


@pytest.mark.parametrize("many", [False, True], ids=["one statement", "several at once"])
def test_a_connection_that_the_server_ended_is_known_as_lost(postgres, django_db_blocker, many):
    """The server's farewell can be read while the next statement cannot be written any more."""
    postgres.home.mkdir(mode=0o700)
    statement = "SELECT $1::int + 1"
    with django_db_blocker.unblock(), postgres.running():
        assert sql.rows(statement, 1) == [(2,)]
        backend = connection.connection.info.backend_pid
        other = connection.copy()
        other.ensure_connection()
        os.kill(other.connection.info.backend_pid, signal.SIGKILL)
        assert processes.wait_for(lambda: backend not in processes.pids(), stage.SECONDS)
        with pytest.raises(OperationalError):
            sql.rows_of_each(statement, [[1], [2]]) if many else sql.rows(statement, 1)
        connection.close()
        stage.eventually(lambda: sql.rows(statement, 1) == [(2,)], "the server is back")
