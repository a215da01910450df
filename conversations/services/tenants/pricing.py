"""The price of a reply, by the tokens that its model counted."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from django.conf import settings

from conversations.engines.contract import Usage
from memory.language_models import catalogue

MILLION = Decimal(1_000_000)

Prices = tuple[Decimal, Decimal, Decimal]  # in, out, in from a cache; US dollars for a million tokens


def cost(model: str, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> Decimal | None:
    """Return the price of the tokens in US dollars; None if it is unknown, or if no tokens were counted.

    MODEL_PRICES counts first, then the catalogue of models. Where no price of cached tokens is known, they cost the
    full price.

    tokens_cached: the part of `tokens_in` that the provider read from its cache
    """
    prices = _prices_of(model)
    if prices is None or not (tokens_in or tokens_out):
        return None
    price_in, price_out, price_cached = prices
    cached = min(tokens_cached, tokens_in)
    return (price_in * (tokens_in - cached) + price_cached * cached + price_out * tokens_out) / MILLION


def cost_of(usage: Iterable[Usage]) -> Decimal | None:
    """Return the price of all the calls together; None if that of any is unknown, or if there are none."""
    prices = [
        cost(each.model, each.tokens_in, each.tokens_out, each.tokens_cached)
        for each in usage
        if each.tokens_in or each.tokens_out
    ]
    known = [price for price in prices if price is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(prices) else None


def _prices_of(model: str) -> Prices | None:
    configured = {name.lower(): prices for name, prices in settings.MODEL_PRICES.items()}
    for name in catalogue.names_of(model):
        if prices := configured.get(name):
            price_in, price_out, *cached = map(Decimal, prices)
            return price_in, price_out, cached[0] if cached else price_in
    known = catalogue.find(model)
    if known is None or known.price_in is None or known.price_out is None:
        return None
    return known.price_in, known.price_out, known.price_in if known.price_cached is None else known.price_cached
