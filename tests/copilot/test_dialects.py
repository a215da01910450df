"""A reader's stream from each kind of server; tests/conversations/test_dialects.py has the same by SMS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversations.models import Assistant, Chunk, Client, Turn
from tests.copilot.reading import Browser, text_of
from tests.dialect_table import TABLE, Row
from tests.fakes.dialects import Dialect, FakeDialects

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]


@pytest.fixture
def model(settings: Any) -> Iterator[FakeDialects]:
    """The language model, in the place of the usual one."""
    with FakeDialects() as server:
        settings.OPENAI_BASE_URL = server.base_url
        yield server


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_reader_sees_the_answer_and_nothing_else(
    ann: Browser, roofers: Client, model: FakeDialects, settings: Any, row: Row
) -> None:
    settings.OPENAI_TIMEOUT_SECONDS = 10
    Assistant.objects.filter(client=roofers).update(temperature=0.3, max_tokens=400)
    if row.dialect == Dialect.API_VERSION:
        settings.OPENAI_BASE_URL = f"{model.base_url}?api-version=2026-10-01"
    if row.confidence:
        Assistant.objects.filter(client=roofers).update(human_below_confidence=0.1)
    if "window" in row.dialect:
        Assistant.objects.filter(client=roofers).update(system_prompt="You sell kettles. " * 900)
    row.begin(model)
    events = ann.ask("Hello, who are you?")

    turn = Turn.objects.get()
    wanted = row.text_of("streamed")
    assert turn.code == row.code
    if wanted is None:
        assert events[-1].name == "error"
        assert not Chunk.objects.filter(role="ai").exclude(content__startswith="You said").exists()
        return
    assert events[-1].name == "done"
    assert Chunk.objects.get(role="ai").content == wanted
    last = [
        event for event in events if event.name == "delta" and event.data.get("attempt", turn.attempt) == turn.attempt
    ]
    assert text_of(last[-1:]) != ""
    assert events[-1].data["message"]["content"] == wanted
