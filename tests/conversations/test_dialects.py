"""A customer's reply from each kind of server, by SMS; tests/copilot/test_dialects.py has the same for streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversations.models import Assistant, Chunk, Client, Conversation, ProviderModel, Step, Turn
from tests.conftest import Door, reply_to_all
from tests.dialect_table import TABLE, Row
from tests.fakes.dialects import Dialect, FakeDialects

pytestmark = pytest.mark.django_db


@pytest.fixture
def fake(shop: Client, settings: Any) -> Iterator[FakeDialects]:
    """The server that writes the shop's replies."""
    settings.RETRY_BASE_SECONDS = 0
    settings.OPENAI_TIMEOUT_SECONDS = 10
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny", temperature=0.3, max_tokens=400)
    with FakeDialects() as server:
        settings.OPENAI_BASE_URL = server.base_url
        yield server


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_customer_gets_the_answer_and_nothing_else(
    door: Door, shop: Client, fake: FakeDialects, settings: Any, row: Row
) -> None:
    if row.dialect == Dialect.API_VERSION:
        settings.OPENAI_BASE_URL = f"{fake.base_url}?api-version=2026-10-01"
    if row.confidence:
        Assistant.objects.filter(client=shop).update(human_below_confidence=0.1)
    if "window" in row.dialect:
        Assistant.objects.filter(client=shop).update(system_prompt="You sell kettles. " * 900)
    row.begin(fake)
    conversation_id = door.says("Hello, who are you?")["conversation_id"]
    reply_to_all()

    conversation = Conversation.objects.get(pk=conversation_id)
    said = Chunk.objects.filter(conversation=conversation, role="ai").values_list("content", flat=True)
    fallback = conversation.assistant.fallback if conversation.assistant else ""
    assert list(said) == [row.text if row.text is not None else fallback]
    assert (conversation.needs_staff_since is not None) == (row.text is None)
    assert Turn.objects.latest("started_at").code == row.code
    learned = {}
    for model in ProviderModel.objects.all():
        learned |= {name: fact["value"] for name, fact in model.learned.items()}
    learned.pop("token_ratio", None)
    assert learned == row.learned
    if row.tools:
        assert Step.objects.get().description == "Ask the colour"
        assert conversation.current_goal == {"description": "Buy a kettle"}
    sent = len(fake.requests)
    assert sent <= 10


@pytest.mark.parametrize("row", [row for row in TABLE if row.learned and row.text], ids=str)
def test_what_was_learned_saves_the_next_reply_a_request(
    door: Door, shop: Client, fake: FakeDialects, row: Row
) -> None:
    if row.confidence:
        Assistant.objects.filter(client=shop).update(human_below_confidence=0.1)
    if "window" in row.dialect:
        Assistant.objects.filter(client=shop).update(system_prompt="You sell kettles. " * 900)
    row.begin(fake)
    door.says("Hello, who are you?")
    reply_to_all()
    sent = len(fake.requests)
    door.says("Hello again!")
    reply_to_all()

    assert len(fake.requests) == sent + 1
    assert fake.requests[-1].problem == ""
