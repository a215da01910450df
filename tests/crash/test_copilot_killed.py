"""kill -9 while the copilot streams a reply, and streams beside requests, in the real web process."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest
import requests

from conversations.models import Assistant, Chunk, Client, Turn
from conversations.services.core.sql import column
from tests.copilot.reading import Browser, text_of, user
from tests.crash.stage import eventually

LONG = "One two three four five six seven eight nine ten."
THREADS, STREAMS = 2, 3
VARIABLES = {"WEB_WORKERS": "1", "WEB_THREADS": str(THREADS), "WEB_STREAMS": str(STREAMS)}


@pytest.fixture
def ann(convo):
    Assistant.objects.update(in_copilot=True)
    with Browser(convo.base_url, user(f"ann-{time.monotonic_ns()}", Client.objects.get(pk=convo.client_id))) as browser:
        yield browser


def _others_connected() -> int:
    [found] = column(
        "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return int(found)


def test_streams_leave_requests_their_threads_and_the_database_its_connections(convo, web, ann):
    with ExitStack() as open_streams:
        streams = [
            open_streams.enter_context(ann.stream("POST", "/copilot", {"message": "Nobody writes yet"}))
            for _ in range(STREAMS)
        ]
        for events in streams:
            events.next("session")
        for _ in range(20):
            assert requests.get(f"{convo.base_url}/readyz", timeout=5).status_code in (200, 503)
        with ann.stream("POST", "/copilot", {"message": "One too many"}) as events:
            turn_id = events.next("session").data["turn_id"]
            assert events.rest() == [], "it ends, so that its reader comes back later"
        assert Turn.objects.get(pk=turn_id).status == "running", "and its reply is owed"
        # No dispatcher runs: connected are the web process's threads, its batches, and what reads for streams.
        eventually(lambda: _others_connected() <= THREADS + 2, "what ended before is no longer connected")
    Turn.objects.filter(status="running").delete()
    eventually(lambda: ann.call("POST", "/copilot", {"message": ""})[0] == 400, "streams that were left end")


def test_a_reader_who_vanishes_gives_the_stream_back_at_once(convo, web):
    """The process has no more streams than these, and the next heartbeat is far away."""
    Assistant.objects.update(in_copilot=True)
    shop = Client.objects.get(pk=convo.client_id)
    for _ in range(3):
        with Browser(convo.base_url, user(f"bea-{time.monotonic_ns()}", shop)) as bea, ExitStack() as open_streams:
            for _ in range(STREAMS):
                events = open_streams.enter_context(bea.stream("POST", "/copilot", {"message": "Nobody writes yet"}))
                events.next("session")
        eventually(lambda: there_is_room(convo, shop), "there is room for another stream", 10)
    Turn.objects.filter(status="running").delete()


def there_is_room(convo, shop):
    """Return whether a stream goes on after its first event: it does not where there is no room."""
    with (
        Browser(convo.base_url, user(f"cid-{time.monotonic_ns()}", shop)) as cid,
        cid.stream("POST", "/copilot", {"message": "Is there room?"}) as events,
    ):
        Turn.objects.filter(pk=events.next("session").data["turn_id"]).delete()
        return bool(events.rest())


def test_a_web_process_that_is_killed_loses_no_reply(convo, web, ann):
    dispatcher = convo.start_dispatcher()
    last_word = threading.Event()
    convo.openai.then("reply", text=LONG, hold=last_word)
    with ann.stream("POST", "/copilot", {"message": "Count"}) as events:
        session = events.next("session").data
        first = events.next("delta")
        web.kill()
        with pytest.raises(requests.RequestException):
            events.rest()
    last_word.set()
    eventually(lambda: Chunk.objects.filter(role="ai", content=LONG).exists(), "the reply is kept")
    convo.start_web()
    with ann.stream("GET", f"/copilot/stream/{session['turn_id']}", **{"Last-Event-ID": first.id}) as events:
        assert text_of([first, *events.rest()]) == LONG
    assert ann.ask("Go on", session_id=session["session_id"])[-1].name == "done"
    assert len(ann.get(f"/copilot?session_id={session['session_id']}")["items"]) == 4
    dispatcher.kill()


def test_a_reply_whose_dispatcher_is_killed_is_begun_anew(convo, web, ann):
    dispatcher = convo.start_dispatcher()
    never = threading.Event()
    convo.openai.then("reply", text="Half of a thought", hold=never)
    with ann.stream("POST", "/copilot", {"message": "Count"}) as events:
        turn_id = events.next("session").data["turn_id"]
        first = events.next("delta")
        assert "Half of a thought".startswith(first.data["text"])
        dispatcher.kill()
        convo.openai.then("reply", text=LONG)
        convo.start_dispatcher()
        rest = events.rest()
        assert rest[-1].name == "done"
        assert text_of([first, *rest]) == LONG, "the half thought is gone from the screen"
    assert Turn.objects.get(pk=turn_id).attempt == 2
    assert Chunk.objects.filter(role="ai", content__contains="Half of a thought").count() == 0
    never.set()
