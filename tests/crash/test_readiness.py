"""Readiness of a real web process: while its database stands still, and after it was asked to stop."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.crash import stage
from tests.crash.stage import SECONDS, Postgres, eventually


def ready(convo: stage.Convo) -> tuple[int, str]:
    """Status and code or status word of `/readyz`."""
    answer = requests.get(f"{convo.base_url}/readyz", timeout=SECONDS)
    said = answer.json()
    return answer.status_code, said["data"]["status"] if said["success"] else said["code"]


class TestFrozen:
    """While PostgreSQL stands still."""

    @pytest.fixture
    def postgres(self, tmp_path: Any) -> Postgres:
        return Postgres(tmp_path / "home")

    @pytest.fixture
    def convo(self, postgres: Postgres, django_db_blocker: Any) -> Any:
        postgres.home.mkdir(mode=0o700)
        # A request waits for ten minutes for its database; readiness does not.
        variables = {"DATABASE_WAIT_SECONDS": "600", "WEB_THREADS": "1", "WEB_WORKERS": "1"}
        with (
            django_db_blocker.unblock(),
            postgres.running() as url,
            stage.Convo(url, postgres.home, **variables) as convo,
        ):
            yield convo

    def test_it_is_not_ready_and_says_so_though_all_threads_wait(self, convo: stage.Convo, postgres: Postgres) -> None:
        convo.start_web()
        assert ready(convo) == (200, "ready")
        with postgres.frozen():
            with pytest.raises(requests.Timeout):  # its only thread waits from now on
                requests.get(f"{convo.base_url}/conversations", headers={"X-Service-API-Key": convo.key}, timeout=1)
            assert ready(convo) == (503, "database_away")
            assert requests.get(f"{convo.base_url}/healthz", timeout=SECONDS).status_code == 200
        eventually(lambda: ready(convo) == (200, "ready"), "it is ready again")


class TestStopping:
    """After the first signal, with time for load balancers."""

    @pytest.fixture
    def convo(self, tmp_path: Any, django_db_blocker: Any) -> Any:
        with (
            django_db_blocker.unblock(),
            stage.database() as url,
            stage.Convo(url, tmp_path, WEB_DRAIN_SECONDS="600") as convo,
        ):
            yield convo

    def test_it_is_not_ready_and_serves_until_a_second_signal(self, convo: stage.Convo) -> None:
        web = convo.start_web()
        assert ready(convo) == (200, "ready")
        web.terminate()
        eventually(lambda: ready(convo) == (503, "stopping"), "it says that it stops")
        assert convo.post_own(user_id="ann", message="Hello").status_code == 200
        assert web.is_alive
        web.stop()
        with pytest.raises(requests.ConnectionError):
            ready(convo)
