"""PostgreSQL that stands still under load: requests are refused in time, and everything goes on when it does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import requests

from conversations.models import Chunk, Message
from tests.crash import stage
from tests.crash.stage import Crowd, Postgres

# The limit in which a request must be answered, whatever stands still: the wait for the database, with all that is
# added to it, and time for a busy machine. Nothing but the limits of Convo ends the wait: the server never does.
ANSWERED_SECONDS = 60


@pytest.fixture
def postgres(tmp_path):
    return Postgres(tmp_path / "home")


@pytest.fixture
def convo(postgres, django_db_blocker):
    postgres.home.mkdir(mode=0o700)
    with (
        django_db_blocker.unblock(),
        postgres.running() as url,
        stage.Convo(url, postgres.home, LEASE_SECONDS="2", DATABASE_WAIT_SECONDS="1") as convo,
    ):
        yield convo


def _say(convo: stage.Convo, message_id: str) -> requests.Response:
    body = {"client_id": convo.client_id, "user_id": message_id, "message": "Hello", "message_id": message_id}
    headers = {"X-Service-API-Key": convo.key}
    return requests.post(f"{convo.base_url}/webhooks/sms/inbound", json=body, headers=headers, timeout=ANSWERED_SECONDS)


def test_a_frozen_database_is_a_503_and_goes_on_by_itself(convo, postgres):
    web, dispatcher = convo.start_web(), convo.start_dispatcher()
    workers = web.children()
    ids = [uuid4().hex for _ in range(24)]
    with Crowd(convo) as crowd:
        crowd.goes_on()
        with postgres.frozen():
            with ThreadPoolExecutor(len(ids)) as people:
                refused = list(people.map(lambda each: _say(convo, each), ids))
            listed = requests.get(
                f"{convo.base_url}/conversations", headers={"X-Service-API-Key": convo.key}, timeout=ANSWERED_SECONDS
            )
            ready = requests.get(f"{convo.base_url}/readyz", timeout=ANSWERED_SECONDS)
            alive = requests.get(f"{convo.base_url}/healthz", timeout=ANSWERED_SECONDS)
        stage.eventually(lambda: [_say(convo, each).status_code for each in ids] == [200] * len(ids), "it goes on")
        crowd.goes_on()
    convo.becomes_quiet()

    assert {answer.status_code for answer in refused} == {503}
    assert {answer.headers.get("Retry-After") for answer in refused} == {"1"}
    assert all(stage.is_envelope(answer) for answer in refused)
    assert (listed.status_code, ready.status_code, alive.status_code) == (503, 503, 200)
    assert web.has_logged("the database did not answer")
    assert dispatcher.is_alive
    assert web.children() == workers
    assert sorted(Chunk.objects.filter(message_id__in=ids).values_list("message_id", flat=True)) == sorted(ids)
    crowd.assert_heard_once_each()
    crowd.assert_answered()
    assert set(Message.objects.values_list("status", flat=True)) == {"sent", "delivered"}
    convo.assert_everything_went_once()
