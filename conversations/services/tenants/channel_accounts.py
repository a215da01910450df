"""Channel accounts: a client's accounts at providers, and whether the provider accepts their credentials."""

from __future__ import annotations

import logging
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Account, Adapter
from channels_out.errors import SendError
from channels_out.public_addresses import EVERYWHERE
from conversations.models import ChannelAccount, Conversation, Message, SendPause
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import SYSTEM, record

log = logging.getLogger(__name__)

SIMULATED_PATIENCE = 8.0  # seconds to wait for a simulated provider's answer
BROKEN = ChannelAccount.Health.BROKEN
BASE_URL_SETTINGS = {
    "whatsapp": "GRAPH_BASE_URL",
    "messenger": "GRAPH_BASE_URL",
    "dialog360": "DIALOG360_BASE_URL",
    "plivo": "PLIVO_BASE_URL",
}


def adapter_of(account: ChannelAccount) -> Adapter:
    """Return the adapter of the account's provider and channel. Raises LookupError if there is none (any more)."""
    return registry.adapter_for(account.provider, account.channel)


def as_account(account: ChannelAccount) -> Account:
    """Return the account as the plain value that adapters take.

    Its base URL is the row's own, else the provider's. A simulated account's is our own simulator, whatever its row
    says, with a short timeout.
    """
    if account.is_simulated:
        return Account(
            address=account.address,
            credentials=account.credentials,
            base_url=f"{settings.INTERNAL_BASE_URL}/simulator/{account.pk}",
            timeout=(5.0, min(settings.PROVIDER_TIMEOUT_SECONDS, SIMULATED_PATIENCE)),
            private_networks=EVERYWHERE,
            public_url=settings.PUBLIC_BASE_URL,
        )
    default = getattr(settings, BASE_URL_SETTINGS.get(account.provider, ""), "")
    return Account(
        address=account.address,
        credentials=account.credentials,
        base_url=account.base_url or default,
        timeout=(5.0, settings.PROVIDER_TIMEOUT_SECONDS),
        private_networks=tuple(settings.ORB_PRIVATE_NETWORKS),
        public_url=settings.PUBLIC_BASE_URL,
    )


def check(account: ChannelAccount) -> str:
    """Ask the provider whether it accepts the account's credentials, and set the account's health accordingly.

    Do not call it within a transaction: it waits for the provider.

    Returns the provider's name for the account. Raises InvalidError for a provider that is not known (any more) or
    cannot be asked, ConflictError `credentials_refused`, or `no_answer` if nothing was learned (the health stays).
    """
    try:
        name = adapter_of(account).check(as_account(account))
    except LookupError as error:
        raise InvalidError(str(error), code="unknown_provider") from None
    except SendError as error:
        if not error.account_broken:
            raise ConflictError(str(error), code="no_answer") from None
        ChannelAccount.objects.filter(pk=account.pk).update(health=BROKEN, health_reason=str(error)[:300])
        raise ConflictError(str(error), code="credentials_refused") from None
    _save_healthy(account)
    return name


def resume(account: ChannelAccount) -> int:
    """Send from the account again and return how many messages are queued for it.

    Call it after its credentials changed, or when the provider accepts the account again.
    """
    _save_healthy(account)
    SendPause.objects.filter(channel_account=account).delete()
    return count_queued(account)


def count_queued(account: ChannelAccount) -> int:
    """Return how many messages are queued for sending from the account."""
    return Message.objects.filter(channel_account=account, status=Message.Status.QUEUED).count()


def mark_healthy(account: ChannelAccount) -> None:
    """Set the account's health to OK, so that its messages are tried again. The account is not saved."""
    account.health, account.health_reason, account.mended_at = ChannelAccount.Health.OK, "", timezone.now()


def _save_healthy(account: ChannelAccount) -> None:
    mark_healthy(account)
    changes = {name: getattr(account, name) for name in ("health", "health_reason", "mended_at")}
    ChannelAccount.objects.filter(pk=account.pk).update(**changes)


def lock_usable(account_id: UUID) -> ChannelAccount | None:
    """Lock the account and return it; None if it is deleted or broken."""
    found = ChannelAccount.objects.select_for_update(no_key=True).filter(pk=account_id).first()
    return found if found and found.health != BROKEN else None


def mark_broken(account: ChannelAccount, conversation: Conversation, code: str, sentence: str) -> None:
    """Mark the locked account as broken: its messages wait until staff repair it.

    conversation: where it came to light; its ledger gets the event
    code, sentence: the provider's refusal
    """
    account.health, account.health_reason = BROKEN, f"{code}: {sentence}"[:300]
    account.save(update_fields=["health", "health_reason"])
    record(conversation, "account_broken", SYSTEM, cause=code, channel_account_id=str(account.pk))
    log.error("account broken: account=%s code=%s", account.pk, code)
