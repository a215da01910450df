"""The models of a provider, for staff: which are in use, when they end, and what was learned of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.utils.dateparse import parse_datetime

from conversations.models import Assistant, ModelProvider, ProviderModel
from conversations.services.tenants import model_endings
from conversations.services.tenants.model_endings import NOTICE, Users
from memory.language_models import capabilities, catalogue
from memory.language_models.catalogue import CatalogueModel

MOST_OTHERS = 300


@dataclass(frozen=True, slots=True)
class LearnedFact:
    """A fact that a provider's answer taught of a model, in words; when, and what taught it."""

    sentence: str
    at: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class ModelOverview:
    """One model at a provider. is_listed: False if the provider's list does not name it any more, None if never read.

    known: what the catalogue says of it
    """

    model: str
    users: Users
    ends_on: date | None
    ends_soon: bool
    has_ended: bool
    is_listed: bool | None
    facts: tuple[LearnedFact, ...]
    known: CatalogueModel | None

    @property
    def is_notable(self) -> bool:
        """Return whether there is something to say of it, beside that it exists."""
        return bool(self.users.assistants or self.users.clients or self.facts)

    @property
    def window(self) -> str:
        """Return the context window in words."""
        return f"{self.known.context_window:,} tokens" if self.known and self.known.context_window else "unknown"

    @property
    def prices(self) -> str:
        """Return the published prices in words."""
        if self.known is None or self.known.price_in is None or self.known.price_out is None:
            return "unknown"
        cached = "" if self.known.price_cached is None else f", {_dollars(self.known.price_cached)} cached"
        return f"{_dollars(self.known.price_in)} in, {_dollars(self.known.price_out)} out{cached}"


@dataclass(frozen=True, slots=True)
class ProviderOverview:
    """The models of a provider: those that staff want to know about, and the names of the others."""

    models: tuple[ModelOverview, ...]
    others: tuple[ModelOverview, ...]
    more: int  # others that are not shown
    read_at: datetime | None


def overview(provider: ModelProvider, today: date) -> ProviderOverview:
    """Return what is known of the provider's models."""
    used = model_endings.models_used_at(provider)
    rows = {row.model: row for row in provider.models.all()}
    read_at = max((row.last_listed_at for row in rows.values() if row.last_listed_at), default=None)
    found = [
        _model(name, rows.get(name), used.get(name, Users()), read_at, today)
        for name in sorted(used.keys() | rows.keys())
    ]
    others = [each for each in found if not each.is_notable]
    return ProviderOverview(
        models=tuple(each for each in found if each.is_notable),
        others=tuple(others[:MOST_OTHERS]),
        more=max(len(others) - MOST_OTHERS, 0),
        read_at=read_at,
    )


def facts_of(learned: Mapping[str, Any]) -> tuple[LearnedFact, ...]:
    """Return what was learned of a model in words."""
    return tuple(
        LearnedFact(
            capabilities.describe(name, fact.get("value")),
            parse_datetime(str(fact.get("at"))),
            str(fact.get("why", "")),
        )
        for name, fact in sorted(learned.items())
        if isinstance(fact, Mapping)
    )


def learned_by(assistant: Assistant) -> tuple[LearnedFact, ...]:
    """Return what was learned of the assistant's first model."""
    use = model_endings.first_use(assistant)
    at = {"provider": use.provider_id} if use.provider_id else {"provider__from_environment": True}
    row = ProviderModel.objects.filter(model=use.model, **at).first()
    return facts_of(row.learned) if row else ()


def _model(name: str, row: ProviderModel | None, users: Users, read_at: datetime | None, today: date) -> ModelOverview:
    known = catalogue.find(name)
    ends_on = (row.shutdown_date if row else None) or (known.shutdown_date if known else None)
    return ModelOverview(
        model=name,
        users=users,
        ends_on=ends_on,
        ends_soon=bool(ends_on and ends_on - NOTICE <= today),
        has_ended=bool(ends_on and ends_on <= today),
        is_listed=bool(row and row.last_listed_at == read_at) if read_at else None,
        facts=facts_of(row.learned) if row else (),
        known=known,
    )


def _dollars(price: Decimal) -> str:
    """Return the price with at least two decimals: $0.10, $0.0028."""
    return f"${price:.2f}" if price == round(price, 2) else f"${price.normalize():f}"
