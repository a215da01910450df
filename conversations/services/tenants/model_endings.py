"""The models in use that end soon or have ended: what staff are told in time, with what replaces them.

A model ends on the date that its provider's list gives, else on the catalogue's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q, QuerySet, Value
from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext

from conversations.models import Assistant, Client, ModelProvider, ProviderModel
from memory.language_models import catalogue, choosing

NOTICE = timedelta(days=60)

ENGINES = [Assistant.EngineName.AUTO, Assistant.EngineName.OPENAI]  # those that ask the assistant's model provider


@dataclass(frozen=True, slots=True)
class Use:
    """A model at a provider that somebody uses. Without id and name the provider is the environment's."""

    provider_id: UUID | None
    provider: str
    model: str


@dataclass(slots=True)
class Users:
    """The numbers of assistants and clients that use a model."""

    assistants: int = 0
    clients: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """A model in use that ends on a day, or has ended."""

    use: Use
    users: Users
    on: date
    replacement: str
    has_ended: bool

    @property
    def sentence(self) -> str:
        """Return what staff are told."""
        ends = gettext("%(model)s ended on %(day)s.") if self.has_ended else gettext("%(model)s ends on %(day)s.")
        ends %= {"model": self._model, "day": date_format(self.on, "j F Y")}
        instead = gettext("Choose another model.")
        if self.replacement:
            instead = gettext("Use %(model)s instead.") % {"model": self.replacement}
        return " ".join(filter(None, [ends, self._used, instead]))

    @property
    def _model(self) -> str:
        """Return the model, and its provider if it is known."""
        if not self.use.provider:
            return self.use.model
        return gettext("%(model)s at %(provider)s") % {"model": self.use.model, "provider": self.use.provider}

    @property
    def _used(self) -> str:
        """Return who uses the model, as a sentence; '' if nobody was counted."""
        assistants, clients = self.users.assistants, self.users.clients
        if assistants and clients:
            return gettext("%(assistants)s and %(clients)s use it.") % {
                "assistants": ngettext("%(n)s assistant", "%(n)s assistants", assistants) % {"n": assistants},
                "clients": ngettext("%(n)s client", "%(n)s clients", clients) % {"n": clients},
            }
        if assistants:
            return ngettext("%(n)s assistant uses it.", "%(n)s assistants use it.", assistants) % {"n": assistants}
        return ngettext("%(n)s client uses it.", "%(n)s clients use it.", clients) % {"n": clients} if clients else ""


def endings(client_ids: Collection[UUID] | None, today: date) -> list[Ending]:
    """Return the models of these clients that end within NOTICE or have ended, the first to end first.

    client_ids: None for all clients, and for OPENAI_MODEL whether an assistant uses it or not
    """
    assistants = Assistant.objects.filter(engine__in=ENGINES, client__is_active=True)
    clients = Client.objects.filter(is_active=True)
    if client_ids is not None:
        assistants, clients = assistants.filter(client__in=client_ids), clients.filter(pk__in=client_ids)
    used = _used(assistants, clients)
    if client_ids is None:
        used.setdefault(Use(None, "", settings.OPENAI_MODEL), Users())
    return _ending(used, today)


def endings_of(assistant: Assistant, today: date) -> list[Ending]:
    """Return the models of the assistant that end within NOTICE or have ended. No users are counted."""
    if assistant.engine not in ENGINES:
        return []
    used = {first_use(assistant): Users()}
    if assistant.fallback_model:
        used[_use(assistant.fallback_provider or assistant.model_provider, assistant.fallback_model)] = Users()
    return _ending(used, today)


def first_use(assistant: Assistant) -> Use:
    """Return the model that the assistant asks first."""
    return _use(assistant.model_provider, assistant.model)


def models_used_at(provider: ModelProvider) -> dict[str, Users]:
    """Return the users of each model of the provider. A client's provider has no users beside it."""
    assistants = Assistant.objects.filter(engine__in=ENGINES, client__is_active=True)
    clients = Client.objects.filter(is_active=True)
    if provider.client_id:
        assistants, clients = assistants.filter(client=provider.client_id), clients.filter(pk=provider.client_id)
    mine = None if provider.from_environment else provider.pk
    return {use.model: users for use, users in _used(assistants, clients).items() if use.provider_id == mine}


def _use(provider: ModelProvider | None, model: str) -> Use:
    if provider is None or provider.from_environment:
        return Use(None, "", model or settings.OPENAI_MODEL)
    return Use(provider.pk, provider.name, model)


def _used(assistants: QuerySet[Assistant], clients: QuerySet[Client]) -> dict[Use, Users]:
    """Return the users of each model, from one query."""
    second = assistants.exclude(fallback_model="")
    rows = _count(assistants, "model_provider", "model", "assistants").union(
        _count(second.filter(fallback_provider=None), "model_provider", "fallback_model", "assistants"),
        _count(second.exclude(fallback_provider=None), "fallback_provider", "fallback_model", "assistants"),
        _count(clients.exclude(summary_model=""), "summary_provider", "summary_model", "clients"),
        all=True,
    )
    used: dict[Use, Users] = {}
    for provider_id, name, is_environment, model, who, count in rows:
        is_named = provider_id is not None and not is_environment
        use = Use(provider_id if is_named else None, name if is_named else "", model or settings.OPENAI_MODEL)
        users = used.setdefault(use, Users())
        setattr(users, who, getattr(users, who) + count)
    return used


def _count(rows: QuerySet[Any], provider: str, model: str, who: str) -> QuerySet[Any, Any]:
    """Return the query of how many of the rows use each model. who: the field of Users."""
    at = (provider, f"{provider}__name", f"{provider}__from_environment", model)
    counted = rows.order_by().values(*at).annotate(who=Value(who), count=Count("pk"))
    found: QuerySet[Any, Any] = counted.values_list(*at, "who", "count")
    return found


def _ending(used: Mapping[Use, Users], today: date) -> list[Ending]:
    asked = {use: users for use, users in used.items() if use.provider_id or choosing.is_configured()}
    dates = _dates(asked) if asked else {}
    found = []
    for use, users in asked.items():
        known = catalogue.find(use.model)
        day = dates.get((use.provider_id, use.model)) or (known.shutdown_date if known else None)
        if day and day - NOTICE <= today:
            replacement = known.replacement if known else ""
            found.append(Ending(use, users, day, replacement, has_ended=day <= today))
    return sorted(found, key=lambda each: (each.on, each.use.model, each.use.provider))


def _dates(uses: Collection[Use]) -> dict[tuple[UUID | None, str], date]:
    """Return the shutdown dates that the providers' lists give."""
    at = Q(provider__in={use.provider_id for use in uses if use.provider_id}) | Q(provider__from_environment=True)
    listed = ProviderModel.objects.filter(at, model__in={use.model for use in uses}, shutdown_date__isnull=False)
    rows = listed.values_list("provider", "provider__from_environment", "model", "shutdown_date")
    return {(None if is_environment else pk, model): day for pk, is_environment, model, day in rows if day}
