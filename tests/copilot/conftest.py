"""A shop whose members talk to its copilot, a model that writes, and what the dispatcher does about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connection

from conversations.models import Client
from conversations.services.copilot import feed
from conversations.services.replies.streaming_writer import CopilotWriter
from tests import factories, named_clients
from tests.copilot.reading import Browser, user
from tests.fakes.openai import FakeOpenAI

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a cluster no two roles write in one transaction, so none is around a test of this folder there."""
    if named_clients.IN_CLUSTER:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.django_db(transaction=True), append=False)


@pytest.fixture
def roofers(transactional_db: Any) -> Client:
    """A client with assistants for its members, and one for its customers."""
    client = factories.ClientFactory(name="Roofers", sub_domain="roofers")
    for key, name in (("field", "Field technician"), ("pm", "Project manager"), ("exec", "Executive")):
        prompt = f"You help as {name}."
        factories.AssistantFactory(
            client=client, key=key, name=name, system_prompt=prompt, engine="auto", in_copilot=True, is_default=False
        )
    factories.AssistantFactory(client=client, key="ada", name="Ada, for customers")
    return client


@pytest.fixture
def model(settings: Any) -> Iterator[FakeOpenAI]:
    """The language model."""
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


@pytest.fixture
def writer(
    roofers: Client, model: FakeOpenAI, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CopilotWriter]:
    """What the dispatcher does for the copilot."""
    settings.DISPATCH_POLL_SECONDS = 0.02
    monkeypatch.setattr("conversations.services.replies.streaming_writer.FLUSH_SECONDS", 0.02)
    monkeypatch.setattr("conversations.services.replies.sinks.STREAM_PAUSE_SECONDS", 0.05)
    resident = CopilotWriter(patience=0.2)
    resident.start()
    yield resident
    resident.stop()
    resident.join()


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The feed's thread goes, with its connection, before the database is emptied."""
    monkeypatch.setattr(feed, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.02)
    yield
    until = time.monotonic() + 10
    while feed.feed._thread is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert feed.feed._thread is None, f"the feed's thread reads on: {feed.feed._thread}"


@pytest.fixture
def ann(roofers: Client, live_server: Any) -> Iterator[Browser]:
    """A member of the roofers'."""
    with Browser(live_server.url, user("ann", roofers)) as browser:
        yield browser


@pytest.fixture
def bob(roofers: Client, live_server: Any) -> Iterator[Browser]:
    """Another."""
    with Browser(live_server.url, user("bob", roofers)) as browser:
        yield browser


@pytest.fixture
def firm(db: Any) -> Client:
    client = factories.ClientFactory(name="Firm", sub_domain="firm")
    factories.AssistantFactory(client=client, key="field", in_copilot=True, is_default=False)
    factories.AssistantFactory(client=client, key="hidden", in_copilot=False)
    return client


@pytest.fixture
def raw(transactional_db: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own, in the copilot's role, as whoever `convo.logins` names."""
    parameters = connection.get_connection_params()
    parameters.pop("cursor_factory", None)
    parameters.pop("context", None)
    with psycopg.connect(**{**parameters, "prepare_threshold": None}) as opened:
        opened.execute(f"SET ROLE {django_settings.COPILOT_ROLE}")
        opened.commit()
        yield opened
