"""The cost of a reply: by the exact model's price, cached tokens at theirs, and unknown rather than wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from conversations.services.tenants.pricing import cost

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("gpt-6-luna", "0.60"),
        ("gpt-6-luna-2026-10-01", "0.60"),
        ("openai/gpt-6-luna", "0.60"),
        ("gpt-5.6-sol", "35"),
        ("gpt-5.6-luna", "1.40"),
        ("gpt-5", "11.25"),
        ("gpt-5-mini-2025-08-07", "2.25"),
        ("claude-haiku-5-5", "0.60"),
        ("gpt-4.1-nano", "0.50"),
    ],
)
def test_a_million_tokens_in_and_out_cost_what_is_published(model: str, dollars: str) -> None:
    assert cost(model, MILLION, MILLION) == Decimal(dollars)


@pytest.mark.parametrize("model", ["gpt-5.4-codex", "gpt-4o-mini-foo", "gpt-6", "qwen3-32b", "my-model", ""])
def test_an_unknown_price_is_unknown(model: str) -> None:
    assert cost(model, MILLION, MILLION) is None


def test_tokens_that_nobody_counted_cost_an_unknown_sum() -> None:
    assert cost("gpt-6-luna", 0, 0) is None


def test_cached_tokens_cost_their_own_price() -> None:
    assert cost("gpt-6-luna", MILLION, 0, MILLION) == Decimal("0.01")
    assert cost("gpt-6-luna", 100, 10, 60) == Decimal("0.0000096")
    assert cost("gpt-6-luna", 100, 0, 500) == cost("gpt-6-luna", 100, 0, 100), "no more are cached than went in"
    assert cost("claude-fable-5-2", MILLION, 0, MILLION) == 8, "without a price of their own they cost the full one"


def test_prices_of_ones_own_come_first(settings: Any) -> None:
    settings.MODEL_PRICES = {"gpt-6-luna": ("1", "2"), "My-Model": ("3", "4", "0.5"), "llama": ("0", "0")}
    assert cost("gpt-6-luna-2026-10-01", MILLION, MILLION) == 3
    assert cost("gpt-6-luna", MILLION, 0, MILLION) == 1
    assert cost("my-model", MILLION, MILLION, MILLION) == Decimal("4.5")
    assert cost("my-model-2", MILLION, MILLION) is None
    assert cost("llama", MILLION, MILLION) == 0, "what costs nothing is not unknown"
