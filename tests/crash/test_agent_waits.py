"""A turn that waits for its agent's callback belongs to no process: dispatchers stop and die, and it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import requests
from django.utils import timezone

from conversations.models import Assistant, Conversation, Turn
from tests.crash.stage import Convo, Process, eventually
from tests.fakes.agent import LATER, Answer, FakeAgent

VARIABLES = {"ORB_PRIVATE_NETWORKS": "127.0.0.0/8", "DISPATCH_REPLIES": "2"}
numbers = count()


@pytest.fixture
def agent(convo: Convo) -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        assistant = Assistant.objects.get(client=convo.client_id)
        assistant.engine, assistant.agent_url = "agent", fake.url
        assistant.agent_secrets = {"current": fake.secret}
        assistant.save()
        yield fake


@pytest.fixture
def person() -> str:
    """Somebody new."""
    return f"5199997{next(numbers):04}"


def call_back(convo: Convo, request: Any, *messages: str) -> requests.Response:
    return requests.post(
        f"{convo.base_url}/conversations/{request['conversation_id']}/replies",
        json={"turn_token": request["turn_token"], "messages": messages},
        headers={"X-Service-API-Key": convo.key},
        timeout=30,
    )


def waiting() -> int:
    return Turn.objects.filter(status="running", waiting_until__isnull=False).count()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_dispatcher_that_ends_meanwhile_changes_nothing(
    convo: Convo, dispatcher: Process, agent: FakeAgent, person: str, end: str
) -> None:
    agent.then(LATER)
    convo.says("Where is my parcel?", person)
    agent.wait_for(1)
    eventually(waiting, "the turn waits")
    getattr(dispatcher, end)()
    assert waiting() == 1
    convo.start_dispatcher()
    assert call_back(convo, agent.requests[0], "On its way.").status_code == 200
    convo.becomes_quiet()
    assert convo.sent_to(person) == ["On its way."]
    assert len(agent.requests) == 1, "it was asked once"
    assert Turn.objects.filter(conversation__contact__phone=f"+{person}").get().attempt == 1


def test_a_dispatcher_that_dies_before_it_has_read_the_answer_asks_again_with_the_same_key(
    convo: Convo, dispatcher: Process, agent: FakeAgent, person: str
) -> None:
    agent.then(Answer({"later": True}, status=202, hang=20), LATER)
    convo.says("Where is my parcel?", person)
    agent.wait_for(1)
    dispatcher.kill()
    convo.start_dispatcher()
    agent.wait_for(2)
    eventually(waiting, "the turn waits")
    first, second = agent.requests
    assert first["idempotency_key"] == second["idempotency_key"]
    refused = call_back(convo, first, "Hm")
    assert (refused.status_code, refused.json()["code"]) == (409, "too_late")
    assert call_back(convo, second, "On its way.").status_code == 200
    convo.becomes_quiet()
    assert convo.sent_to(person) == ["On its way."]


def test_many_wait_and_two_places_serve_everybody_else(
    convo: Convo, dispatcher: Process, agent: FakeAgent, person: str
) -> None:
    agent.then(*[LATER] * 12)
    people = [f"{person[:-2]}{number:02}" for number in range(50, 62)]
    for each in people:
        convo.says("Hello", each)
    agent.wait_for(12)
    eventually(lambda: waiting() == 12, "all wait")
    convo.says("And me?", person)
    eventually(lambda: convo.sent_to(person), "who comes after them is answered")
    for request in agent.requests[:12]:
        assert call_back(convo, request, "At last.").status_code == 200
    convo.becomes_quiet()
    assert [convo.sent_to(each) for each in people] == [["At last."]] * 12
    convo.assert_everything_went_once()


def test_a_newer_message_and_a_deadline_end_the_waiting_without_anybody_s_help(
    convo: Convo, dispatcher: Process, agent: FakeAgent, person: str
) -> None:
    agent.then(LATER, LATER)
    convo.says("one", person)
    agent.wait_for(1)
    eventually(waiting, "the turn waits")
    convo.says("two", person)
    agent.wait_for(2)
    assert [each["content"] for each in agent.requests[1]["messages"]] == ["one", "two"]
    eventually(waiting, "the turn waits again")
    Turn.objects.filter(status="running").update(waiting_until=timezone.now(), lease_until=timezone.now())
    convo.becomes_quiet()
    assert convo.sent_to(person) == ["You said: one / two"]
    statuses = Turn.objects.filter(conversation__contact__phone=f"+{person}").order_by("started_at")
    assert list(statuses.values_list("status", flat=True)) == ["overtaken", "failed", "committed"]
    assert not Conversation.objects.filter(reply_owed=True).exists()
