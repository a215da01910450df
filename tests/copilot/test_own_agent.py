"""A client's own agent in the copilot: its stream is read word by word, and what it says later comes later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.utils import timezone

from conversations.models import Assistant, Chunk, Client, Conversation, Step, Turn
from conversations.services.core.ledger import Actor
from conversations.services.replies import late_replies
from conversations.services.tenants import api_keys
from conversations.services.transitions import takeover
from tests.copilot.reading import Browser, text_of
from tests.crash.stage import eventually
from tests.fakes.agent import LATER, Answer, FakeAgent, Stream

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]


@pytest.fixture
def agent(roofers: Client, settings: Any) -> Iterator[FakeAgent]:
    settings.ORB_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with FakeAgent() as fake:
        for assistant in Assistant.objects.filter(client=roofers, in_copilot=True):
            assistant.engine, assistant.agent_url = "agent", fake.url
            assistant.agent_secrets = {"current": fake.secret}
            assistant.agent_timeout_seconds = 5
            assistant.save()
        yield fake


def call_back(live_server: Any, client: Client, request: Any, **answer: Any) -> requests.Response:
    return requests.post(
        f"{live_server.url}/conversations/{request['conversation_id']}/replies",
        json={"turn_token": request["turn_token"], **answer},
        headers={"X-Service-API-Key": api_keys.create_api_key(client)[1]},
        timeout=20,
    )


def waiting() -> bool:
    return Turn.objects.filter(status="running", waiting_until__isnull=False).exists()


def test_its_words_are_read_as_they_come(ann: Browser, agent: FakeAgent) -> None:
    last = threading.Event()
    done = {"steps": {"add": ["Order primer"]}, "topic": "not its business", "end": True, "messages": ["ignored"]}
    agent.then(Stream([("delta", {"text": "Use a "}), ("delta", {"text": "primer."}), ("done", done)], hold=last))
    with ann.stream("POST", "/copilot", {"message": "Which primer?", "role": "pm"}) as events:
        events.next("session")
        first = events.next("delta")
        assert not Chunk.objects.filter(role="ai").exists(), "it comes while it is written"
        last.set()
        rest = events.rest()
    assert rest[-1].name == "done"
    assert text_of([first, *rest]) == "Use a primer."
    assert Chunk.objects.get(role="ai").content == "Use a primer."
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.topic) == ("active", "Which primer?"), "they are the user's to change"
    assert Step.objects.get().description == "Order primer"
    [request] = agent.requests
    assert (request["channel"], [each["content"] for each in request["messages"]]) == ("web", ["Which primer?"])


def test_a_whole_answer_is_read_at_once(ann: Browser, agent: FakeAgent) -> None:
    agent.says("Use a primer.", "Wait a day.")
    assert text_of(ann.ask("Which primer?")) == "Use a primer.\n\nWait a day."


def test_a_stream_that_is_cut_keeps_what_was_read(ann: Browser, agent: FakeAgent) -> None:
    agent.then(Stream([("delta", {"text": "Use a "}), ("delta", {"text": "pri"})]))
    error = ann.ask("Which primer?")[-1]
    assert (error.name, error.data["code"]) == ("error", "agent_cut_off")
    assert (error.data["message"]["content"], error.data["message"]["partial"]) == ("Use a pri", True)


def test_an_agent_that_says_nothing_here_is_an_error(ann: Browser, agent: FakeAgent) -> None:
    agent.then(*[Answer({"messages": []})] * 3)
    error = ann.ask("Which primer?")[-1]
    assert (error.name, error.data["code"]) == ("error", "agent_bad_answer")


def test_what_it_says_later_comes_later(ann: Browser, agent: FakeAgent, roofers: Client, live_server: Any) -> None:
    agent.then(LATER)
    with ann.stream("POST", "/copilot", {"message": "Which primer?"}) as events:
        events.next("session")
        eventually(waiting, "the turn waits")
        [request] = agent.requests
        assert call_back(live_server, roofers, request).status_code == 400, "its reader waits for words"
        assert call_back(live_server, roofers, request, messages=["Use a primer."]).status_code == 200
        done = events.rest()[-1]
    assert (done.name, done.data["message"]["content"]) == ("done", "Use a primer.")
    assert Turn.objects.get().attempt == 1


@pytest.mark.parametrize("how", ["stopped", "taken_over"])
def test_a_stop_or_a_takeover_ends_the_waiting(
    how: str, ann: Browser, agent: FakeAgent, roofers: Client, live_server: Any
) -> None:
    agent.then(LATER)
    with ann.stream("POST", "/copilot", {"message": "Which primer?"}) as events:
        session = events.next("session").data
        eventually(waiting, "the turn waits")
        if how == "stopped":
            assert ann.call("POST", f"/copilot/sessions/{session['session_id']}/stop")[0] == 200
        else:
            takeover.take_over(session["session_id"], actor=Actor("staff", "grace"), now=timezone.now())
        assert late_replies.end_waiting(timezone.now()) == 1
        done = events.rest()[-1]
    assert (done.name, done.data["finish_reason"], done.data["message"]) == ("done", how, None)
    refused = call_back(live_server, roofers, agent.requests[0], messages=["Hm"])
    assert (refused.status_code, refused.json()["code"]) == (409, how)


def test_after_its_deadline_it_is_asked_again(ann: Browser, agent: FakeAgent) -> None:
    agent.then(LATER)
    agent.says("Use a primer.")
    with ann.stream("POST", "/copilot", {"message": "Which primer?"}) as events:
        events.next("session")
        eventually(waiting, "the turn waits")
        Turn.objects.update(waiting_until=timezone.now(), lease_until=timezone.now())
        late_replies.end_waiting(timezone.now())
        rest = events.rest()
    assert text_of(rest) == "Use a primer."
    first, second = agent.requests
    assert first["idempotency_key"] == second["idempotency_key"]
    assert first["turn_token"] != second["turn_token"]


def test_the_copilot_shows_a_link_to_each_file_of_an_answer(ann: Browser, agent: FakeAgent) -> None:
    agent.then(Answer({"messages": ["Here."], "attachments": [{"url": "https://host.example/plan.pdf"}]}))
    events = ann.ask("The plan, please", role="pm")
    assert events[-1].name == "done"
    words, _, link = text_of(events).partition("\n\n")
    assert words == "Here."
    assert link.startswith("plan.pdf: ")
    assert "/media/" in link
    assert Chunk.objects.get(role="ai").content == text_of(events)
