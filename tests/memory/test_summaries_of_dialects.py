"""Summaries by each kind of server: the next conversation knows the summary, and never a model's reasoning."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from memory.language_models.contract import Kind, LLMError, ModelAccess
from memory.records import TranscriptEntry
from memory.summaries import summarise, update_summary
from tests.dialect_table import TABLE, Row
from tests.fakes.dialects import Dialect, FakeDialects

SUMMARY = "The person wants a red kettle."
AT = datetime(2026, 11, 29, tzinfo=UTC)
SAID = [TranscriptEntry(position=1, role="user", content="I want a red kettle. " * 60, at=AT)]
ROWS = [
    row for row in TABLE if not row.tools and row.dialect not in (Dialect.CUT_AT_LIMIT, Dialect.IGNORES_TOOL_CHOICE)
]


@pytest.fixture
def fake() -> Iterator[FakeDialects]:
    """The server that writes summaries."""
    with FakeDialects() as server:
        server.reply = lambda _messages: SUMMARY
        yield server


def access_to(fake: FakeDialects, row: Row) -> ModelAccess:
    """The access to the server that speaks the row's dialect."""
    row.begin(fake)
    query = {"api-version": "2026-10-01"} if row.dialect == Dialect.API_VERSION else {}
    return ModelAccess(Kind.COMPATIBLE, "tiny", base_url=fake.base_url, query=query, seconds=10)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_final_summary_is_the_model_s_or_says_why_it_is_not(fake: FakeDialects, row: Row) -> None:
    access = access_to(fake, row)
    try:
        made = summarise(access, SAID)
    except LLMError as error:
        assert error.retryable, "it is tried again"
        assert row.text is None
        return
    if row.text is None:
        assert made.kind == "extractive"
        assert "The model wrote none" in made.text
    elif row.dialect == Dialect.REFUSAL:
        assert made.kind == "extractive", "a refusal is no summary"
    else:
        assert (made.text, made.kind) == (SUMMARY, "llm")
    assert fake.reasoning not in made.text
    assert len(fake.requests) <= 4


@pytest.mark.parametrize("row", [row for row in ROWS if row.text and row.dialect != Dialect.REFUSAL], ids=str)
def test_the_notes_of_an_open_conversation_are_the_model_s(fake: FakeDialects, row: Row) -> None:
    assert update_summary(access_to(fake, row), "Before.", SAID) == SUMMARY
