"""The rules of model providers: what their settings may be, who may use which, and how they are deleted.

The admin and the commands ask here. Every refusal is a sentence that repeats no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet, RestrictedError

from conversations.models import Assistant, Client, ModelProvider
from conversations.services.core.errors import ConflictError, InvalidError
from memory.language_models.contract import Kind
from memory.text import storable

MOST_HEADERS = 20
LONGEST_VALUE = 4_000  # characters of a header, a query parameter or a key
LARGEST_BODY = 20_000  # characters of JSON
MOST_NAMED = 5  # users of a provider that a refusal names

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
_SENDABLE = re.compile(r"[\x20-\x7e]*\Z")
# What the HTTP client writes itself. Two of them would let a request end where it does not.
_CLIENTS_OWN = {"connection", "content-length", "content-type", "expect", "host", "te", "trailer", "transfer-encoding"}
_CLIENTS_OWN |= {"upgrade"}
# What Convo composes for each answer; another value would lose the conversation or the answer.
_COMPOSED = {"input", "messages", "model", "stream", "stream_options"}


def usable_by(client: Client | None) -> QuerySet[ModelProvider]:
    """Return the providers that the client may name: its own and the installation's. Without client: the latter."""
    return ModelProvider.objects.filter(Q(client=None) | Q(client=client) if client else Q(client=None))


def check_usable(provider: ModelProvider | None, client: Client) -> None:
    """Raise InvalidError unless the provider is the client's own or the installation's."""
    if provider and provider.client_id not in (None, client.pk):
        raise InvalidError("This model provider belongs to another client.", code="unknown_provider")


def check_embeds(provider: ModelProvider | None) -> None:
    """Raise InvalidError if the provider makes no vectors."""
    if provider and not Kind(provider.kind).has_embeddings:
        raise InvalidError(
            f"{provider.name} makes no embeddings: no provider of its kind does. Choose an OpenAI or an"
            " OpenAI-compatible provider.",
            code="no_embeddings",
        )


def check_transcribes(provider: ModelProvider | None) -> None:
    """Raise InvalidError if the provider writes down no recordings."""
    if provider and not Kind(provider.kind).has_transcription:
        raise InvalidError(
            f"{provider.name} transcribes nothing: no provider of its kind does. Choose an OpenAI or an"
            " OpenAI-compatible provider.",
            code="no_transcription",
        )


def check_settings(provider: ModelProvider) -> None:
    """Raise InvalidError with a sentence about the first setting of the provider that cannot work."""
    key = provider.credentials.get("api_key", "")
    if not key and provider.kind != Kind.COMPATIBLE:
        raise InvalidError("Enter the API key.", code="missing_key")
    if key and (len(key) > LONGEST_VALUE or not _VISIBLE.match(key)):
        raise InvalidError("The API key must be one word of plain characters.", code="invalid_key")
    if provider.kind == Kind.COMPATIBLE and not provider.base_url:
        raise InvalidError("An OpenAI-compatible provider needs a base URL.", code="missing_base_url")
    check_headers(provider.headers)
    check_query(provider.query)
    check_body(provider.body)


def check_headers(headers: Any) -> None:
    """Raise InvalidError unless the value is an object of headers that can be sent."""
    _check_texts(headers, "headers", '{"X-Team": "support"}')
    for name, value in headers.items():
        if not _HEADER.match(name) or not _SENDABLE.match(value):
            raise InvalidError("A header has a plain name, and a value of plain characters in one line.")
        if name.lower() in _CLIENTS_OWN:
            raise InvalidError(f"The header {name} cannot be set: it is part of how a request is sent.")


def check_query(query: Any) -> None:
    """Raise InvalidError unless the value is an object of query parameters."""
    _check_texts(query, "query parameters", '{"api-version": "2026-10-01"}')
    if not all(query):
        raise InvalidError("A query parameter needs a name.")


def check_body(body: Any) -> None:
    """Raise InvalidError unless the value is an object that can be stored and added to each request."""
    if not isinstance(body, dict):
        raise InvalidError('Write the body parameters as a JSON object, such as {"service_tier": "flex"}.')
    if named := sorted(_COMPOSED & body.keys()):
        raise InvalidError(f"The body parameter {named[0]} cannot be set: Convo composes it for each answer.")
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise InvalidError("The body parameters are not plain JSON.") from None
    if len(text) > LARGEST_BODY:
        raise InvalidError(f"The body parameters may have {LARGEST_BODY:,} characters.")
    if _unstorable(body):
        raise InvalidError("The body parameters contain characters that cannot be stored.")


def _check_texts(values: Any, what: str, example: str) -> None:
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise InvalidError(f"Write the {what} as a JSON object of texts, such as {example}.")
    if len(values) > MOST_HEADERS or any(len(text) > LONGEST_VALUE for pair in values.items() for text in pair):
        raise InvalidError(f"There may be {MOST_HEADERS} {what}, each of at most {LONGEST_VALUE:,} characters.")
    if _unstorable(values):
        raise InvalidError(f"The {what} contain characters that cannot be stored.")


def _unstorable(value: Any) -> bool:
    """Return whether PostgreSQL refuses a text somewhere in the JSON: NUL, or half of a surrogate pair."""
    if isinstance(value, str):
        return storable(value) != value
    if isinstance(value, Mapping):
        return any(_unstorable(name) or _unstorable(each) for name, each in value.items())
    return isinstance(value, list) and any(map(_unstorable, value))


def users_of(provider: ModelProvider) -> list[str]:
    """Return the names of the assistants and clients that use the provider."""
    assistants = Assistant.objects.filter(Q(model_provider=provider) | Q(fallback_provider=provider))
    clients = Client.objects.filter(
        Q(summary_provider=provider) | Q(embedding_provider=provider) | Q(transcription_provider=provider)
    )
    return [
        *(f"the assistant {name} of {client}" for name, client in assistants.values_list("name", "client__name")),
        *(f"the client {name}" for name in clients.values_list("name", flat=True)),
    ]


def check_unused(provider: ModelProvider) -> None:
    """Raise ConflictError `provider_in_use` if an assistant or a client uses the provider."""
    users = users_of(provider)
    if users:
        more = f" and {len(users) - MOST_NAMED} more" if len(users) > MOST_NAMED else ""
        raise ConflictError(
            f"{provider.name} is in use and cannot be deleted. Choose another provider first for"
            f" {', '.join(users[:MOST_NAMED])}{more}.",
            code="provider_in_use",
        )


def delete(provider: ModelProvider) -> None:
    """Delete the provider and what was learned of its models. Raises ConflictError `provider_in_use`."""
    check_unused(provider)
    try:
        with transaction.atomic():
            provider.delete()
    except (RestrictedError, IntegrityError):  # somebody has chosen it since
        check_unused(provider)
        raise ConflictError(f"{provider.name} is in use.", code="provider_in_use") from None
