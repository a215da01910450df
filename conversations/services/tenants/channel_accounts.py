"""A client's accounts at providers, as the outside world knows them."""

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
    """The adapter that speaks for the account. Raises LookupError for a provider that is not known (any more)."""
    return registry.adapter_for(account.provider, account.channel)


def as_account(account: ChannelAccount) -> Account:
    """The account as a plain value, with the base URL of its own or else the provider's; a simulated account's is our
    own provider end, whatever stands in its row, and answers soon or never."""
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
    """The provider was asked whether it takes the account's credentials, and the account's health says what it said.

    Returns what the provider calls the account. Raises InvalidError for a provider that is not known (any more) or
    cannot be asked, ConflictError (`credentials_refused`, or `no_answer` where nothing is known now).
    Not to be called within a transaction: it waits for the provider.
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
    _mended(account)
    return name


def resume(account: ChannelAccount) -> int:
    """The account is tried again, as it is: after new credentials, or once the provider lets it in again. Returns how
    many of its messages were waiting."""
    _mended(account)
    SendPause.objects.filter(channel_account=account).delete()
    return waiting_for(account)


def waiting_for(account: ChannelAccount) -> int:
    """How many messages are still to be sent from the account."""
    return Message.objects.filter(channel_account=account, status=Message.Status.QUEUED).count()


def mend(account: ChannelAccount) -> None:
    """The account, which is yet to be saved, is tried again from now on."""
    account.health, account.health_reason, account.mended_at = ChannelAccount.Health.OK, "", timezone.now()


def _mended(account: ChannelAccount) -> None:
    mend(account)
    changes = {name: getattr(account, name) for name in ("health", "health_reason", "mended_at")}
    ChannelAccount.objects.filter(pk=account.pk).update(**changes)


def lock_usable(account_id: UUID) -> ChannelAccount | None:
    """The account, locked; None where it is gone, or known to be broken."""
    found = ChannelAccount.objects.select_for_update(no_key=True).filter(pk=account_id).first()
    return found if found and found.health != BROKEN else None


def mark_broken(account: ChannelAccount, conversation: Conversation, code: str, sentence: str) -> None:
    """The locked account is refused: its messages wait until somebody mends it. The ledger of the session where that
    came to light says so."""
    account.health, account.health_reason = BROKEN, f"{code}: {sentence}"[:300]
    account.save(update_fields=["health", "health_reason"])
    record(conversation, "account_broken", SYSTEM, cause=code, channel_account_id=str(account.pk))
    log.error("account broken: account=%s code=%s", account.pk, code)
