"""A Convo that runs, and agents that speak to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conversations.client import ConversationSync, Settings
from conversations.models import Client
from tests.client.rude_proxy import RudeProxy
from tests.crash import stage

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def convo(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[stage.Convo]:
    """Its web process, on a database of its own."""
    with (
        django_db_blocker.unblock(),
        stage.database() as url,
        stage.Convo(url, tmp_path_factory.mktemp("convo")) as convo,
    ):
        convo.start_web()
        yield convo


@pytest.fixture
def shop(convo: stage.Convo) -> str:
    """The client's sub-domain."""
    return Client.objects.get(pk=convo.client_id).sub_domain


@pytest.fixture
def phone() -> str:
    """Nobody's yet."""
    return f"+5198{next(_numbers):07}"


@pytest.fixture
def proxy(convo: stage.Convo) -> Iterator[RudeProxy]:
    """What is between the agent and the server."""
    with RudeProxy(convo.base_url) as proxy:
        yield proxy


SettingsOf = Callable[..., Settings]


@pytest.fixture
def settings_of(convo: stage.Convo, tmp_path: Path) -> SettingsOf:
    """An agent's settings; with an outbox of the test's."""

    def made(api_url: str = "", **more: Any) -> Settings:
        more = {"api_key": convo.key, "outbox_path": tmp_path / "box" / "outbox.sqlite3", "timeout": 10.0, **more}
        return Settings(api_url=api_url or convo.base_url, **more)

    return made


@pytest.fixture
def sync(settings_of: SettingsOf) -> ConversationSync:
    """An agent that speaks to the server itself."""
    return ConversationSync(settings_of())
