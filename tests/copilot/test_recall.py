"""The copilot recalls what its user said about the same in earlier sessions: once, with the first message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversations.models import Chunk, Client
from conversations.services.history import remember
from tests.conversations.conftest import close
from tests.copilot.reading import Browser, text_of
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

KETTLE = "My kettle is broken and leaks"


@pytest.fixture
def index(settings: Any, roofers: Client, model: FakeOpenAI) -> Iterator[FakePinecone]:
    """An index at Pinecone, for a client that wants earlier sessions recalled."""
    Client.objects.filter(pk=roofers.pk).update(semantic_recall=True)
    settings.OPENAI_API_KEY, settings.OPENAI_EMBEDDING_DIMENSIONS, settings.MEMORY_LEAST_SIMILARITY = "sk-1", 0, 20
    with FakePinecone(api_key="pc-1") as fake:
        settings.PINECONE_API_KEY, settings.PINECONE_HOST, settings.RECALL_SECONDS = "pc-1", fake.url, 10.0
        yield fake


def talked(who: Browser, text: str) -> str:
    """They said this in a session that is over and remembered."""
    [first, *_] = who.ask(text)
    close(first.data["session_id"])
    assert remember.remember_ended() == 1
    return str(first.data["session_id"])


def memory_of(session_id: str) -> Chunk:
    return Chunk.objects.get(conversation=session_id, position=2, role="memory")


def told(model: FakeOpenAI) -> str:
    """All that the model was given for its newest reply."""
    asked = [request for request in model.requests if "messages" in request.body]
    return "\n".join(message["content"] for message in asked[-1].body["messages"])


def test_the_first_message_recalls_and_no_later_one(
    ann: Browser, bob: Browser, model: FakeOpenAI, index: FakePinecone
) -> None:
    kettle = talked(ann, KETTLE)
    talked(ann, "Do you sell blue paint?")
    talked(bob, "My kettle is Bob's, and leaks too")
    [first, *_] = ann.ask("The boiler leaks again")
    session = first.data["session_id"]
    assert f"“{KETTLE}”" in told(model)
    assert "Bob" not in told(model)
    found = [each for each in memory_of(session).metadata["recalled"] if each["store"] == "pinecone"]
    assert [(each["session"], each["why"]) for each in found] == [(kettle, "by meaning")]
    asked = len(index.requests)
    ann.ask("And the kettle?", session_id=session)
    assert len(index.requests) == asked


def test_a_store_that_is_away_costs_the_reply_no_more_than_its_bound(
    ann: Browser, model: FakeOpenAI, index: FakePinecone, settings: Any
) -> None:
    talked(ann, KETTLE)
    settings.RECALL_SECONDS = 0.3
    index.fail_next(Fault(hang=30.0), times=10)
    [first, *rest] = ann.ask("The boiler leaks again")
    assert text_of(rest) == "You said: The boiler leaks again"
    assert memory_of(first.data["session_id"]).metadata["recall_problem"]


def test_it_is_off_unless_the_client_wants_it(
    ann: Browser, roofers: Client, model: FakeOpenAI, index: FakePinecone
) -> None:
    talked(ann, KETTLE)
    Client.objects.filter(pk=roofers.pk).update(semantic_recall=False)
    index.requests.clear()
    ann.ask("The boiler leaks again")
    assert index.requests == []
    assert f"“{KETTLE}”" not in told(model)
