"""The set-up of a client before its first message: the client, its assistants, its providers and channel accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils.translation import gettext

from channels_out import registry
from channels_out.errors import UnknownAdapterError
from conversations.models import Assistant, ChannelAccount, Client, ModelProvider
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.tenants import channel_accounts, provider_rules


def create_client(name: str, sub_domain: str, *, time_zone: str = "UTC", **quotas: Any) -> Client:
    """Create a client with a default assistant. Raises InvalidError, or ConflictError `sub_domain_taken`.

    time_zone: the name that the IANA database has for it
    quotas: values for the weight and the quotas of Client
    """
    client = Client(name=name, sub_domain=sub_domain, time_zone=time_zone, **quotas)
    _clean(client, taken="sub_domain_taken")
    store_client(client)
    return client


def store_client(client: Client) -> None:
    """Store the new client, whose fields are validated already, and create its default assistant."""
    with transaction.atomic():
        client.save(force_insert=True)
        Assistant.objects.create(client=client, key="assistant", name="Assistant", is_default=True)


def get_client(sub_domain: str) -> Client:
    """Return the client with the sub-domain. Raises NotFoundError."""
    client = Client.objects.filter(sub_domain=sub_domain).first()
    if client is None:
        raise NotFoundError(
            gettext("There is no client with the sub-domain %(sub_domain)s. Create one with create_client.")
            % {"sub_domain": repr(sub_domain)}
        )
    return client


def create_assistant(client: Client, key: str, *, make_default: bool = False, **fields: Any) -> Assistant:
    """Create an assistant of the client. Raises InvalidError, or ConflictError `key_taken`.

    make_default: make it the client's default assistant
    fields: values for other fields of Assistant
    """
    assistant = Assistant(client=client, key=key, is_default=make_default, **fields)
    taken = ConflictError(
        gettext("%(client)s has an assistant %(key)s already.") % {"client": client, "key": repr(key)}, code="key_taken"
    )
    try:
        _clean(assistant, taken="key_taken", exclude=["is_default"])
    except ConflictError:
        raise taken from None
    provider_rules.check_usable(assistant.model_provider, client)
    provider_rules.check_usable(assistant.fallback_provider, client)
    with transaction.atomic():
        if make_default:
            Assistant.objects.filter(client=client, is_default=True).update(is_default=False)
        try:
            assistant.save(force_insert=True)
        except IntegrityError:
            raise taken from None
    return assistant


def get_model_provider(client: Client, name: str) -> ModelProvider:
    """Return the client's active provider of the name, else the installation's. Raises NotFoundError."""
    found = provider_rules.usable_by(client).filter(name=name, is_active=True)
    provider = found.order_by(F("client").asc(nulls_last=True)).first()
    if provider is None:
        raise NotFoundError(
            gettext("There is no model provider %(name)s for %(client)s. Create it with create_model_provider.")
            % {"name": repr(name), "client": client}
        )
    return provider


def create_model_provider(
    client: Client | None,
    *,
    kind: str,
    name: str,
    api_key: str = "",
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
) -> ModelProvider:
    """Create the model provider, or give the one of the same name these settings, and return it.

    An updated provider loses the settings that are not given, and is tried again if it was broken.

    client: None for a provider of the installation, which every client's assistants may use

    Raises InvalidError for settings that cannot work, ConflictError if the name stands for a provider of another kind.
    """
    same = ModelProvider.objects.filter(client=client, name=name).first()
    if same and (same.from_environment or same.kind != kind):
        raise ConflictError(
            gettext("There is a model provider %(name)s of another kind already.") % {"name": repr(name)},
            code="name_taken",
        )
    provider = same or ModelProvider(client=client, name=name, kind=kind)
    provider.credentials = {"api_key": api_key} if api_key else {}
    provider.base_url, provider.timeout_seconds = base_url, timeout_seconds
    provider.headers, provider.query = dict(headers or {}), dict(query or {})
    provider.body = {} if body is None else body
    provider.health, provider.health_reason = ModelProvider.Health.OK, ""
    _clean(provider, taken="name_taken", exclude=["credentials", "headers"])
    provider_rules.check_settings(provider)
    try:
        with transaction.atomic():
            provider.save()
    except IntegrityError:
        raise ConflictError(
            gettext("There is a model provider %(name)s already.") % {"name": repr(name)}, code="name_taken"
        ) from None
    return provider


def make_default(assistant: Assistant) -> None:
    """Make the assistant its client's default, which answers where a channel account names no assistant."""
    with transaction.atomic():
        Client.objects.select_for_update().get(pk=assistant.client_id)  # two at once would break the constraint
        others = Assistant.objects.filter(client=assistant.client_id, is_default=True).exclude(pk=assistant.pk)
        others.update(is_default=False)
        Assistant.objects.filter(pk=assistant.pk).update(is_default=True)


def create_channel_account(
    client: Client,
    *,
    channel: str,
    provider: str,
    address: str,
    credentials: Mapping[str, str],
    base_url: str = "",
    assistant: str = "",
    name: str = "",
) -> ChannelAccount:
    """Create the client's account at the provider, or update the one with the same address, and return it.

    An updated account gets the new credentials, and is tried again if it was broken.

    address: the account's number or id at the provider
    base_url: where its provider is reached, if not at the usual place
    assistant: the key of the assistant that answers; '' for the client's default

    Raises InvalidError for an unknown provider or wrong credentials, ConflictError `address_taken` if the address is
    another client's, NotFoundError for an unknown assistant.
    """
    check_credentials(channel, provider, credentials)
    address = registry.adapter_for(provider, channel).normal_address(address)
    same = ChannelAccount.objects.filter(client=client, channel=channel, provider=provider, address=address).first()
    account = same or ChannelAccount(client=client, channel=channel, provider=provider, address=address)
    account.credentials = dict(credentials)
    account.base_url = base_url or account.base_url
    check_base_url(channel, provider, account.base_url)
    account.assistant = get_assistant(client, assistant) if assistant else account.assistant
    account.name = name or account.name
    channel_accounts.mark_healthy(account)
    _clean(account, taken="address_taken", validate_constraints=False)
    try:
        with transaction.atomic():
            account.save()
    except IntegrityError:
        taken = gettext("%(provider)s %(address)s is already another client's account.") % {
            "provider": provider,
            "address": address,
        }
        raise ConflictError(taken, code="address_taken") from None
    return account


def check_credentials(channel: str, provider: str, credentials: Mapping[str, str]) -> None:
    """Check that the credentials are exactly those the provider's adapter needs. Raises InvalidError."""
    try:
        adapter = registry.adapter_for(provider, channel)
    except UnknownAdapterError as error:
        raise InvalidError(str(error), code="unknown_provider") from None
    missing = [name for name in adapter.credentials if not credentials.get(name)]
    if missing:
        raise InvalidError(
            gettext("%(provider)s needs the credentials %(missing)s.")
            % {"provider": provider, "missing": ", ".join(missing)},
            code="missing_credentials",
        )
    unknown = sorted(set(credentials) - set(adapter.credentials))
    if unknown:
        raise InvalidError(
            gettext("%(provider)s has no credentials %(unknown)s.")
            % {"provider": provider, "unknown": ", ".join(unknown)},
            code="unknown_credentials",
        )


def check_base_url(channel: str, provider: str, base_url: str) -> None:
    """Check that a base URL is given if the provider runs on the client's own server. Raises InvalidError."""
    if registry.adapter_for(provider, channel).needs_base_url and not base_url:
        raise InvalidError(
            gettext("%(provider)s needs a base URL, to which messages are posted.") % {"provider": provider},
            code="missing_base_url",
        )


def get_assistant(client: Client, key: str) -> Assistant:
    """Return the client's assistant with the key. Raises NotFoundError."""
    assistant = Assistant.objects.filter(client=client, key=key).first()
    if assistant is None:
        raise NotFoundError(
            gettext("%(client)s has no assistant %(key)s. Create it with create_assistant.")
            % {"client": client, "key": repr(key)}
        )
    return assistant


def _clean(row: Any, *, taken: str, **how: Any) -> None:
    """Validate the row as a form would. Raises the first error as a sentence."""
    try:
        row.full_clean(**how)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        sentence = messages[0] if field == "__all__" else f"{field}: {messages[0]}"
        codes = {each.code for errors in error.error_dict.values() for each in errors}
        if "unique" in codes or "unique_together" in codes:
            raise ConflictError(sentence, code=taken) from None
        raise InvalidError(sentence) from None
