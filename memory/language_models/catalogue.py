"""The catalogue of language models: windows, prices and shutdown dates, as data with their source and date.

`catalogue.json` holds it. A price or a window that nobody read anywhere is null there, and unknown here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).with_name("catalogue.json")

_SNAPSHOT = re.compile(r"[-@]20\d\d(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])\Z")


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """The published facts of a model. None and '' mean that one was not found.

    provider        its maker, as the prefix of names such as `openai/gpt-6-luna` has it
    price_in, price_out, price_cached   US dollars for a million tokens, in prompts of usual length
    context_window, most_output         tokens
    source, read_on where and when it was read
    """

    name: str
    provider: str
    context_window: int | None
    most_output: int | None
    price_in: Decimal | None
    price_out: Decimal | None
    price_cached: Decimal | None
    reasons: bool | None
    tools: bool | None
    pictures: bool | None
    shutdown_date: date | None
    replacement: str
    source: str
    read_on: date


def find(model: str) -> CatalogueModel | None:
    """Return what is known of the model; None if it is not in the catalogue.

    A model is found by its name or as a dated snapshot of it (`gpt-4o-2024-08-06`, `claude-haiku-4-5-20251001`), with
    or without its maker before a slash. The beginning of a name is not enough: `gpt-5-mini` is not `gpt-5`.
    """
    models = _models()
    return next((models[name] for name in names_of(model) if name in models), None)


def context_window(model: str) -> int | None:
    """Return the tokens of the model's context window; None if unknown."""
    found = find(model)
    return found.context_window if found else None


def names_of(model: str) -> list[str]:
    """Return the names in lower case under which the model may be listed: its own, then its name without the date."""
    name = model.strip().lower()
    return list(dict.fromkeys([name, _SNAPSHOT.sub("", name)]))


@cache
def _models() -> Mapping[str, CatalogueModel]:
    """Return the catalogue by name, with and without the maker."""
    listed = json.loads(CATALOGUE.read_text(encoding="utf-8"), parse_float=Decimal)["models"]
    models = [_model(entry) for entry in listed]
    return {f"{model.provider}/{model.name}": model for model in models} | {model.name: model for model in models}


def _model(entry: Mapping[str, Any]) -> CatalogueModel:
    prices = {name: entry[name] for name in ("price_in", "price_out", "price_cached")}
    shutdown = entry["shutdown_date"]
    return CatalogueModel(
        **{
            **entry,
            **{name: None if price is None else Decimal(price) for name, price in prices.items()},
            "shutdown_date": date.fromisoformat(shutdown) if shutdown else None,
            "read_on": date.fromisoformat(entry["read_on"]),
        }
    )
