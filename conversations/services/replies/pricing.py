"""The price of a reply, by the tokens that its model counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from django.conf import settings

from conversations.engines.contract import Usage

MILLION = Decimal(1_000_000)


def cost(model: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    """Return the price of the tokens in US dollars by MODEL_PRICES; None without a price or without tokens.

    The longest name in MODEL_PRICES that the model's name begins with counts: `gpt-4o` for `gpt-4o-2024-08-06`.
    """
    prices: Mapping[str, tuple[str, str]] = settings.MODEL_PRICES
    name = max((name for name in prices if model.startswith(name)), key=len, default="")
    if not name or not (tokens_in or tokens_out):
        return None
    a_million_in, a_million_out = prices[name]
    return (Decimal(a_million_in) * tokens_in + Decimal(a_million_out) * tokens_out) / MILLION


def cost_of(usage: Iterable[Usage]) -> Decimal | None:
    """Return the price of all the calls together; None if that of any is unknown, or if there are none."""
    prices = [cost(each.model, each.tokens_in, each.tokens_out) for each in usage if each.tokens_in or each.tokens_out]
    known = [price for price in prices if price is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(prices) else None
