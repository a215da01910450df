"""What a client needs before the first message: itself, keys, assistants, accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from channels_out import registry
from channels_out.errors import UnknownAdapterError
from conversations.models import Assistant, ChannelAccount, Client
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.tenants import channel_accounts


def create_client(name: str, sub_domain: str) -> Client:
    """A client with a default assistant. Raises InvalidError, or ConflictError (`sub_domain_taken`)."""
    client = Client(name=name, sub_domain=sub_domain)
    _clean(client, taken="sub_domain_taken")
    open_for_business(client)
    return client


def open_for_business(client: Client) -> None:
    """The new client, whose fields are valid, is stored and has a default assistant."""
    with transaction.atomic():
        client.save(force_insert=True)
        Assistant.objects.create(client=client, key="assistant", name="Assistant", is_default=True)


def client_named(sub_domain: str) -> Client:
    """The client with the sub-domain. Raises NotFoundError."""
    client = Client.objects.filter(sub_domain=sub_domain).first()
    if client is None:
        raise NotFoundError(f"There is no client with the sub-domain {sub_domain!r}: create_client makes one.")
    return client


def create_assistant(client: Client, key: str, *, make_default: bool = False, **fields: Any) -> Assistant:
    """One more assistant of the client, its default where asked. Raises InvalidError or ConflictError (`key_taken`)."""
    assistant = Assistant(client=client, key=key, is_default=make_default, **fields)
    _clean(assistant, taken="key_taken", exclude=["is_default"], validate_constraints=False)
    with transaction.atomic():
        if make_default:
            Assistant.objects.filter(client=client, is_default=True).update(is_default=False)
        try:
            assistant.save(force_insert=True)
        except IntegrityError:
            raise ConflictError(f"{client} has an assistant {key!r} already.", code="key_taken") from None
    return assistant


def make_default(assistant: Assistant) -> None:
    """The assistant is the one who answers for its client where an account names none."""
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
    """The client's account at the provider; an account of the same client and address gets the new credentials, and is
    tried again where it was broken.

    Raises InvalidError for an unknown provider or missing credentials, ConflictError (`address_taken`) if the address
    is another client's, NotFoundError for an unknown assistant.
    """
    check_credentials(channel, provider, credentials)
    address = registry.adapter_for(provider, channel).normal_address(address)
    same = ChannelAccount.objects.filter(client=client, channel=channel, provider=provider, address=address).first()
    account = same or ChannelAccount(client=client, channel=channel, provider=provider, address=address)
    account.credentials = dict(credentials)
    account.base_url = base_url or account.base_url
    check_base_url(channel, provider, account.base_url)
    account.assistant = _assistant(client, assistant) if assistant else account.assistant
    account.name = name or account.name
    channel_accounts.mend(account)
    _clean(account, taken="address_taken", validate_constraints=False)
    try:
        with transaction.atomic():
            account.save()
    except IntegrityError:
        taken = f"{provider} {address} is another client's account already."
        raise ConflictError(taken, code="address_taken") from None
    return account


def check_credentials(channel: str, provider: str, credentials: Mapping[str, str]) -> None:
    """They are all that the provider's adapter needs, and no others. Raises InvalidError."""
    try:
        adapter = registry.adapter_for(provider, channel)
    except UnknownAdapterError as error:
        raise InvalidError(str(error), code="unknown_provider") from None
    missing = [name for name in adapter.credentials if not credentials.get(name)]
    if missing:
        raise InvalidError(f"{provider} needs the credentials {', '.join(missing)}.", code="missing_credentials")
    unknown = sorted(set(credentials) - set(adapter.credentials))
    if unknown:
        raise InvalidError(f"{provider} has no credentials {', '.join(unknown)}.", code="unknown_credentials")


def check_base_url(channel: str, provider: str, base_url: str) -> None:
    """It is there, where the provider's end is a server of the client's own. Raises InvalidError."""
    if registry.adapter_for(provider, channel).needs_base_url and not base_url:
        raise InvalidError(f"{provider} needs a base URL: where its messages are posted to.", code="missing_base_url")


def _assistant(client: Client, key: str) -> Assistant:
    assistant = Assistant.objects.filter(client=client, key=key).first()
    if assistant is None:
        raise NotFoundError(f"{client} has no assistant {key!r}: create_assistant makes one.")
    return assistant


def _clean(row: Any, *, taken: str, **how: Any) -> None:
    """Raise what a form would say, as a sentence."""
    try:
        row.full_clean(**how)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        sentence = messages[0] if field == "__all__" else f"{field}: {messages[0]}"
        codes = {each.code for errors in error.error_dict.values() for each in errors}
        if "unique" in codes or "unique_together" in codes:
            raise ConflictError(sentence, code=taken) from None
        raise InvalidError(sentence) from None
