"""Journeys whose entered files are counted: each runs once to warm up, and once more to be measured.

They use HTTP, the fakes of providers and the helpers of the tests only, so that they can be run on older commits. The
recorder comes first among a test's fixtures: it hears only of threads that start after it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from conversations.models import Client
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at
from tests.copilot.reading import cookies_of, user
from tests.fakes.meta import FakeMeta
from tests.routes import WebServer
from tests.structure.entered import Entered, Recorder

pytestmark = pytest.mark.django_db(transaction=True)
TIMES = range(2)

Journeys = dict[str, Entered]


@pytest.fixture
def server() -> Iterator[WebServer]:
    """Return what a web server calls, with connections to the database that end with the test."""
    yield WebServer()
    gc.collect()  # connections are kept by what is called


def test_own_json(recorder: Recorder, journeys: Journeys, server: WebServer, shop: Client, key: str) -> None:
    server.key = key

    def post(person: int, number: int, **more: str) -> Any:
        ids = {"client_id": str(shop.pk), "user_id": f"person-{person}", "message_id": f"{person}.{number}"}
        answer = server.call("POST", "/webhooks/sms/inbound", {**ids, "message": "Hello", **more})
        assert answer.status == 200, answer.body
        return answer.json["data"]

    for person in TIMES:
        post(person, 1)
        with recorder.recording() as journeys["own JSON, delivered again"]:
            again = post(person, 1)
        with recorder.recording() as journeys["own JSON, with a new phone"]:
            told = post(person, 2, phone=f"+5199999999{person}")
        assert again["duplicate"]
        assert (told["duplicate"], told["conversation_id"]) == (False, again["conversation_id"])


def test_whatsapp(recorder: Recorder, journeys: Journeys, server: WebServer, shop: Client) -> None:
    with FakeMeta() as meta:
        account_at(meta, shop)
        for person in TIMES:
            webhook = meta.text_webhook("Hello", sender=f"5199999999{person}")
            with recorder.recording() as journeys["a first WhatsApp message"]:
                answer = server.call("POST", "/webhooks/whatsapp/inbound", webhook.body, headers=dict(webhook.headers))
            with recorder.recording() as journeys["a reply"]:
                replied = reply_to_all()
            with recorder.recording() as journeys["a send over WhatsApp"]:
                sent = send_all()
            assert answer.json["data"]["messages"] == replied == sent == 1
        assert len(meta.sent) == len(TIMES)


def test_copilot(
    recorder: Recorder, journeys: Journeys, server: WebServer, writer: Any, roofers: Client, settings: Any
) -> None:
    cookies = cookies_of(user("ann", roofers))
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-CSRFToken": cookies[settings.CSRF_COOKIE_NAME],
    }
    for number in TIMES:
        question = {"message": f"Question {number}"}
        with recorder.recording() as journeys["a copilot question with its stream"]:
            answer = server.call("POST", "/copilot", question, headers=headers)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert b"event: done" in answer.body
