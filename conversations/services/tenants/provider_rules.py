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
from django.utils.translation import gettext

from conversations.models import Assistant, Client, ModelProvider
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.words import whole
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
        raise InvalidError(gettext("This model provider belongs to another client."), code="unknown_provider")


def check_embeds(provider: ModelProvider | None) -> None:
    """Raise InvalidError if the provider makes no vectors."""
    if provider and not Kind(provider.kind).has_embeddings:
        raise InvalidError(
            gettext(
                "%(provider)s makes no embeddings: no provider of its kind does. "
                "Choose an OpenAI or an OpenAI-compatible provider."
            )
            % {"provider": provider.name},
            code="no_embeddings",
        )


def check_transcribes(provider: ModelProvider | None) -> None:
    """Raise InvalidError if the provider writes down no recordings."""
    if provider and not Kind(provider.kind).has_transcription:
        raise InvalidError(
            gettext(
                "%(provider)s transcribes nothing: no provider of its kind does. "
                "Choose an OpenAI or an OpenAI-compatible provider."
            )
            % {"provider": provider.name},
            code="no_transcription",
        )


def check_settings(provider: ModelProvider) -> None:
    """Raise InvalidError with a sentence about the first setting of the provider that cannot work."""
    key = provider.credentials.get("api_key", "")
    if not key and provider.kind != Kind.COMPATIBLE:
        raise InvalidError(gettext("Enter the API key."), code="missing_key")
    if key and (len(key) > LONGEST_VALUE or not _VISIBLE.match(key)):
        raise InvalidError(gettext("The API key must be one word of plain characters."), code="invalid_key")
    if provider.kind == Kind.COMPATIBLE and not provider.base_url:
        raise InvalidError(gettext("An OpenAI-compatible provider needs a base URL."), code="missing_base_url")
    check_headers(provider.headers)
    check_query(provider.query)
    check_body(provider.body)


def check_headers(headers: Any) -> None:
    """Raise InvalidError unless the value is an object of headers that can be sent."""
    _check_texts(headers, gettext("headers"), '{"X-Team": "support"}')
    for name, value in headers.items():
        if not _HEADER.match(name) or not _SENDABLE.match(value):
            raise InvalidError(gettext("A header has a plain name, and a value of plain characters in one line."))
        if name.lower() in _CLIENTS_OWN:
            raise InvalidError(
                gettext("The header %(name)s cannot be set: it is part of how a request is sent.") % {"name": name}
            )


def check_query(query: Any) -> None:
    """Raise InvalidError unless the value is an object of query parameters."""
    _check_texts(query, gettext("query parameters"), '{"api-version": "2026-10-01"}')
    if not all(query):
        raise InvalidError(gettext("A query parameter needs a name."))


def check_body(body: Any) -> None:
    """Raise InvalidError unless the value is an object that can be stored and added to each request."""
    if not isinstance(body, dict):
        raise InvalidError(gettext('Write the body parameters as a JSON object, such as {"service_tier": "flex"}.'))
    if named := sorted(_COMPOSED & body.keys()):
        raise InvalidError(
            gettext("The body parameter %(name)s cannot be set: Convo composes it for each answer.")
            % {"name": named[0]}
        )
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise InvalidError(gettext("The body parameters are not plain JSON.")) from None
    if len(text) > LARGEST_BODY:
        raise InvalidError(gettext("The body parameters may have %(most)s characters.") % {"most": whole(LARGEST_BODY)})
    if _unstorable(body):
        raise InvalidError(gettext("The body parameters contain characters that cannot be stored."))


def _check_texts(values: Any, what: str, example: str) -> None:
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise InvalidError(
            gettext("Write the %(what)s as a JSON object of texts, such as %(example)s.")
            % {"what": what, "example": example}
        )
    if len(values) > MOST_HEADERS or any(len(text) > LONGEST_VALUE for pair in values.items() for text in pair):
        raise InvalidError(
            gettext("There may be %(most)s %(what)s, each of at most %(longest)s characters.")
            % {"most": MOST_HEADERS, "what": what, "longest": whole(LONGEST_VALUE)}
        )
    if _unstorable(values):
        raise InvalidError(gettext("The %(what)s contain characters that cannot be stored.") % {"what": what})


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
        *(
            gettext("the assistant %(name)s of %(client)s") % {"name": name, "client": client}
            for name, client in assistants.values_list("name", "client__name")
        ),
        *(gettext("the client %(name)s") % {"name": name} for name in clients.values_list("name", flat=True)),
    ]


def check_unused(provider: ModelProvider) -> None:
    """Raise ConflictError `provider_in_use` if an assistant or a client uses the provider."""
    users = users_of(provider)
    if users:
        named = ", ".join(users[:MOST_NAMED])
        if len(users) > MOST_NAMED:
            named = gettext("%(names)s and %(count)s more") % {"names": named, "count": len(users) - MOST_NAMED}
        raise ConflictError(
            gettext("%(provider)s is in use and cannot be deleted. Choose another provider first for %(users)s.")
            % {"provider": provider.name, "users": named},
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
        raise ConflictError(
            gettext("%(provider)s is in use.") % {"provider": provider.name}, code="provider_in_use"
        ) from None
