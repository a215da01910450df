"""Model providers: which model serves whom, and what is learned of the models.

An engine, and memory, get a `ModelAccess`: a plain value with the key, the address and all that is known of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_noop

from conversations.models import Assistant, Client, ModelProvider, ProviderModel
from conversations.services.core.json import dumps
from conversations.services.core.sql import PreparedSelect, row
from memory.language_models import choosing
from memory.language_models.choosing import Purpose
from memory.language_models.contract import Fact, Kind, ModelAccess

ENVIRONMENT = "Environment"
REFUSALS = {
    "unauthorized": gettext_noop("The provider refuses the key."),
    "insufficient_quota": gettext_noop("The account at the provider has no budget left."),
}
FACTS_LAST = timedelta(days=30)  # after which a fact is learned again
LONGEST_MODEL = 100  # characters, as ProviderModel's

_MODEL = """
    SELECT {p}, {m} FROM model_providers p
    LEFT JOIN provider_models m ON m.provider_id = p.id AND m.model = $1
    WHERE """
# Of the client's own, or of the installation's: whatever a row names, the key is its client's.
_NAMED = PreparedSelect(
    _MODEL + "p.id = $2 AND (p.client_id IS NULL OR p.client_id = $3)", p=ModelProvider, m=ProviderModel
)
_FROM_ENVIRONMENT = PreparedSelect(_MODEL + "p.from_environment", p=ModelProvider, m=ProviderModel)
# The name is only for staff: a shared provider that has it already makes this one's longer.
_MAKE_ENVIRONMENT = """
    INSERT INTO model_providers (id, name, kind, credentials, headers, from_environment, updated_at)
    SELECT $1, CASE WHEN EXISTS (SELECT FROM model_providers WHERE client_id IS NULL AND name = $2)
        THEN $2::text || ' ' || left($1::text, 8) ELSE $2 END, $3, '', '', true, now()
    ON CONFLICT DO NOTHING
    RETURNING id"""
_LEARN = """
    INSERT INTO provider_models (client_id, provider_id, model, learned)
    SELECT p.client_id, p.id, $2, $3::jsonb FROM model_providers p WHERE p.id = $1
    ON CONFLICT (provider_id, model) DO UPDATE SET learned = provider_models.learned || EXCLUDED.learned
    RETURNING id"""


# --- which model -----------------------------------------------------------------------------------------------------
def accesses_of(assistant: Assistant | None, *, model: str = "") -> tuple[ModelAccess, ...]:
    """Return the models that write the assistant's replies, in the order in which they are asked.

    An assistant without a provider uses the installation's. Empty where none is configured.

    model: ask this one instead, at the provider of the assistant's first
    """
    if assistant is None:
        access = _access(None, None, model)
        return (access,) if access else ()
    wanted = [(assistant.model_provider_id, model or assistant.model)]
    if assistant.fallback_model and not model:
        second = assistant.fallback_provider_id or assistant.model_provider_id
        wanted.append((second, assistant.fallback_model))
    accesses = [_access(assistant.client_id, *each) for each in wanted]
    return tuple(access for access in accesses if access)


def access_of(provider: ModelProvider, model: str) -> ModelAccess | None:
    """Return the access to a model at the provider; None if the provider is switched off or not configured."""
    if not provider.is_active:
        return None
    is_broken = provider.health == ModelProvider.Health.BROKEN
    if provider.from_environment:
        access = choosing.from_settings(model)
        return replace(access, provider_id=provider.pk, name=provider.name, is_broken=is_broken) if access else None
    return ModelAccess(
        kind=Kind(provider.kind),
        model=model,
        base_url=provider.base_url,
        key=provider.credentials.get("api_key", ""),
        provider_id=provider.pk,
        name=provider.name,
        query=provider.query,
        headers=provider.headers,
        body=provider.body,
        seconds=provider.timeout_seconds or settings.OPENAI_TIMEOUT_SECONDS,
        is_broken=is_broken,
    )


def can_summarise(client: Client, assistant: Assistant | None) -> bool:
    """Return whether a model is configured that writes the client's summaries, without reading a row."""
    named = client.summary_provider_id or (assistant.model_provider_id if assistant else None)
    return bool(named) or choosing.is_configured()


def access_for(client_id: UUID, purpose: Purpose) -> ModelAccess | None:
    """Return the model that serves the client: the one it names, the installation's, or its default assistant's."""
    client = Client.objects.filter(pk=client_id).first()
    if client is None:
        return None
    if purpose is Purpose.EMBEDDINGS:
        return _access(client_id, client.embedding_provider_id, settings.OPENAI_EMBEDDING_MODEL)
    if purpose is Purpose.TRANSCRIPTION:
        model = client.transcription_model or settings.OPENAI_TRANSCRIPTION_MODEL
        return _access(client_id, client.transcription_provider_id, model)
    if client.summary_provider_id or client.summary_model or choosing.is_configured():
        return _access(client_id, client.summary_provider_id, client.summary_model)
    assistant = Assistant.objects.filter(client=client_id, is_default=True).first()
    return _access(client_id, assistant.model_provider_id, assistant.model) if assistant else None


def environment_provider() -> ModelProvider:
    """Return the row of the provider that the settings name; it is made when it is first asked for."""
    kind = choosing.kind_from_settings().value
    found = ModelProvider.objects.filter(from_environment=True).first()
    if found is None:
        row(_MAKE_ENVIRONMENT, uuid4(), ENVIRONMENT, kind)
        found = ModelProvider.objects.get(from_environment=True)
    if found.kind != kind:
        ModelProvider.objects.filter(pk=found.pk).update(kind=kind)
    return found


def _access(client_id: UUID | None, provider_id: UUID | None, model: str) -> ModelAccess | None:
    """Return the access with what is known of the model.

    None if the provider is not configured, switched off, or of another client.
    """
    if provider_id is None and not choosing.is_configured():
        return None
    model = model or settings.OPENAI_MODEL
    key = model[:LONGEST_MODEL]
    found = _FROM_ENVIRONMENT.first(key) if provider_id is None else _NAMED.first(key, provider_id, client_id)
    if found is None:
        return access_of(environment_provider(), model) if provider_id is None else None
    access = access_of(found[0], model)
    return _with_known(access, found[1]) if access else None


def with_known(access: ModelAccess) -> ModelAccess:
    """Return the access with what was learned of its model before."""
    model = access.model[:LONGEST_MODEL]
    return _with_known(access, ProviderModel.objects.filter(provider=access.provider_id, model=model).first())


def _with_known(access: ModelAccess, known: ProviderModel | None) -> ModelAccess:
    """Return the access with the facts that are not too old: a model changes, and what was a mistake goes by itself."""
    oldest = (timezone.now() - FACTS_LAST).isoformat()
    learned = known.learned if known else {}
    fresh = {name: fact.get("value") for name, fact in learned.items() if str(fact.get("at", "")) >= oldest}
    return replace(access, known=fresh)


# --- what is learned -------------------------------------------------------------------------------------------------
def learn(access: ModelAccess, facts: Sequence[Fact]) -> None:
    """Keep what was learned of the model, with when and why. Facts about one request alone are not kept."""
    at = timezone.now().isoformat(timespec="seconds")
    learned = {fact.name: {"value": fact.value, "at": at, "why": fact.why[:200]} for fact in facts if fact.keep}
    if not learned or access.provider_id is None:
        return
    row(_LEARN, access.provider_id, access.model[:LONGEST_MODEL], dumps(learned).decode())


def forget(provider: ModelProvider) -> int:
    """Forget what was learned of the provider's models, and return of how many."""
    return ProviderModel.objects.filter(provider=provider).exclude(learned={}).update(learned={})


def note_outcome(access: ModelAccess, code: str) -> None:
    """Note on the provider that it answered, or that it refused us for a reason that a person must mend.

    code: of the failure; '' if it answered
    """
    reason = REFUSALS.get(code, "")
    if access.provider_id is None or not (reason or (access.is_broken and not code)):
        return
    health = ModelProvider.Health.BROKEN if reason else ModelProvider.Health.OK
    values: dict[str, Any] = {"health": health, "health_reason": reason}
    ModelProvider.objects.filter(pk=access.provider_id).exclude(**values).update(**values)
