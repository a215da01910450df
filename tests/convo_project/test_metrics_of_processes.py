"""`/metrics` adds up what all processes of a `make up` have done: two web workers, a dispatcher and a queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from convo_project import embedded_postgres, processes
from convo_project.address import free_port
from tests.conversations.test_metrics_page import samples
from tests.convo_project.running import Up

pytestmark = pytest.mark.timeout(600)

MESSAGES = 1_000


def test_the_totals_of_a_thousand_messages_are_right(made_home):
    home, port = made_home(), free_port()
    up = Up(home, free_port(), METRICS_KEY="a-key", METRICS_PORT=str(port))
    try:
        facts = up.quickstart()
        key = {"Authorization": "Bearer a-key"}
        post = requests.Session()
        post.headers = {"X-Service-API-Key": facts["api_key"]}

        def look(url=f"{facts['base_url']}/metrics"):
            return samples(requests.get(url, headers=key, timeout=30).text)

        def say(number):
            body = {"client_id": facts["client_id"], "user_id": f"u{number % 50}", "message": f"Hello {number}"}
            return post.post(f"{facts['base_url']}/webhooks/sms/inbound", json=body, timeout=60).status_code

        before = look()
        with ThreadPoolExecutor(16) as threads:
            assert set(threads.map(say, range(MESSAGES))) == {200}
        inbound = ("convo_http_requests_total", "POST", "/webhooks/sms/inbound", "200")
        assert look()[inbound] - before.get(inbound, 0) == MESSAGES

        def has_counted(url=f"{facts['base_url']}/metrics"):
            now = look(url)
            events = now.get(("convo_events_total", "message.in"), 0) - before.get(
                ("convo_events_total", "message.in"), 0
            )
            out = now.get(("convo_events_total", "message.out"), 0)
            sends = now.get(("convo_sends_total", "", "sandbox"), 0)
            turns = now.get(("convo_turns_total", "", "offline", "committed"), 0)
            return events == MESSAGES and out >= 50 and out == sends == turns

        assert processes.wait_for(has_counted, 60), look()
        assert has_counted(f"http://127.0.0.1:{port}/metrics"), "the dispatcher's port shows the same"
        assert requests.get(f"http://127.0.0.1:{port}/other", timeout=5).status_code == 404
        assert look()["convo_batches_total",] > 0
    finally:
        up.stop()
        embedded_postgres.remove(home)
