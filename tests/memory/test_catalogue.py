"""The catalogue of models: found by exact name or dated snapshot, never by a beginning; every entry has a source."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from memory.language_models import catalogue


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpt-6-luna", "gpt-6-luna"),
        ("openai/gpt-6-luna", "gpt-6-luna"),
        ("GPT-6-Luna ", "gpt-6-luna"),
        ("gpt-6-luna-2026-10-01", "gpt-6-luna"),
        ("openai/gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("anthropic/claude-opus-5-5", "claude-opus-5-5"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
    ],
)
def test_it_finds_a_model_by_its_name_or_a_dated_snapshot(model: str, found: str) -> None:
    entry = catalogue.find(model)
    assert entry
    assert entry.name == found


@pytest.mark.parametrize(
    "model",
    [
        *("", "-2026-10-01", "/", "gpt", "gpt-6", "gpt-6-luna-", "gpt-6-luna-fast", "gpt-4o-mini-foo", "gpt-5.1-codex"),
        *("gpt-6-luna-2026-13-01", "gpt-6-luna-20261301", "gpt-6-luna-2026-1001", "gpt-6-luna-0613"),
        *("gpt-6-luna-2026-10-01-2026-10-01", "ft:gpt-4o:shop", "other/gpt-6-luna", "openai/openai/gpt-6-luna"),
        *("openai/claude-opus-5-5", "gpt-6-luna-٢٠٢٦-١٠-٠١", "x" * 10_000),
    ],
)
def test_it_knows_no_other_model(model: str) -> None:
    assert catalogue.find(model) is None
    assert catalogue.context_window(model) is None


def test_it_tells_models_apart_whose_names_begin_alike() -> None:
    windows = {name: catalogue.context_window(name) for name in ("gpt-5", "gpt-5-mini", "gpt-5.4", "gpt-4", "gpt-4o")}
    assert windows == {"gpt-5": 400_000, "gpt-5-mini": 400_000, "gpt-5.4": 1_050_000, "gpt-4": 8192, "gpt-4o": 128_000}
    assert {catalogue.find(name).name for name in windows} == set(windows)  # type: ignore[union-attr]


def test_it_says_when_a_model_ends_and_what_replaces_it() -> None:
    mini, gone = catalogue.find("gpt-4o-mini"), catalogue.find("gpt-4.1-nano")
    assert mini
    assert gone
    assert (mini.shutdown_date, mini.replacement) == (date(2027, 1, 14), "gpt-6-luna")
    assert gone.shutdown_date == date(2026, 10, 23)
    assert gone.price_in == Decimal("0.1"), "old replies can still be explained"


def test_every_entry_is_whole_and_has_a_source() -> None:
    listed = json.loads(catalogue.CATALOGUE.read_text())["models"]
    assert len({entry["name"] for entry in listed}) == len(listed) > 50
    names = {entry["name"] for entry in listed}
    for entry in listed:
        model = catalogue.find(entry["name"])
        assert model
        assert model.name == entry["name"] == entry["name"].lower()
        assert model.source
        assert model.read_on >= date(2026, 11, 29)
        assert (model.price_in is None) == (model.price_out is None), entry
        assert model.price_cached is None or model.price_cached <= (model.price_in or 0)
        assert model.replacement == "" or model.replacement in names | {"gpt-transcribe"}
        assert model.replacement == "" or model.shutdown_date
