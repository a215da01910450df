"""Channel accounts: a client's accounts at providers, and whether the provider accepts their credentials."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_noop

from channels_out import registry
from channels_out.contract import Account, Adapter, Finding
from channels_out.errors import SendError
from channels_out.public_addresses import EVERYWHERE
from conversations.models import ChannelAccount, Conversation, Message, SendCircuit, SendPause
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import SYSTEM, record

log = logging.getLogger(__name__)

SIMULATED_PATIENCE = 8.0  # seconds to wait for a simulated provider's answer
BROKEN = ChannelAccount.Health.BROKEN
ACCEPTED = gettext_noop("The credentials are accepted:")
NOT_ASKED = gettext_noop("The rest could not be asked:")
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
    return Account(
        address=account.address,
        credentials=account.credentials,
        base_url=account.base_url or _default_url(account.provider),
        timeout=(5.0, settings.PROVIDER_TIMEOUT_SECONDS),
        private_networks=tuple(settings.ORB_PRIVATE_NETWORKS),
        public_url=settings.PUBLIC_BASE_URL,
    )


def _default_url(provider: str) -> str:
    return str(getattr(settings, BASE_URL_SETTINGS.get(provider, ""), ""))


def host_of(provider: str, base_url: str, *, is_simulated: bool) -> str:
    """Return the host and port that an account's messages are sent to; '' if they leave no process.

    base_url: the account's own, or ''
    """
    url = settings.INTERNAL_BASE_URL if is_simulated else base_url or _default_url(provider)
    return urlsplit(url).netloc.lower()


def check(account: ChannelAccount) -> str:
    """Ask the provider whether it accepts the account's credentials, and set the account's health accordingly.

    What else it says of the account is stored in its `findings`: its state, and whether it delivers to us.

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
        _save_findings(account, [Finding(str(error), is_fine=False)])
        raise ConflictError(str(error), code="credentials_refused") from None
    _save_healthy(account)
    _save_findings(account, [Finding(f"{ACCEPTED} {name}."), *_findings(account)])
    return name


def webhook_url(account: ChannelAccount) -> str:
    """Return our address for the account's provider, '' where it takes no webhooks."""
    try:
        takes_webhooks = bool(adapter_of(account).signature_headers)
    except LookupError:
        return ""
    return f"{settings.PUBLIC_BASE_URL}/webhooks/{account.channel}/inbound" if takes_webhooks else ""


def _findings(account: ChannelAccount) -> list[Finding]:
    """Return what the provider says of the account beyond its credentials, and what is wrong on our side."""
    found = []
    url = webhook_url(account)
    if url and not account.is_simulated and not url.startswith("https://"):
        sentence = gettext_noop(
            "Providers deliver to https addresses alone: set PUBLIC_BASE_URL to the one at which they reach us."
        )
        found.append(Finding(sentence, is_fine=False))
    try:
        return [*found, *adapter_of(account).inspect(as_account(account), account.business_id, url)]
    except (LookupError, SendError) as error:
        return [*found, Finding(f"{NOT_ASKED} {error}", is_fine=False)]
    except Exception:
        log.exception("account not inspected: account=%s", account.pk)
        return [*found, Finding(gettext_noop("The provider's answer could not be understood."), is_fine=False)]


def _save_findings(account: ChannelAccount, found: list[Finding]) -> None:
    worst_first = sorted(found, key=lambda each: each.is_fine)
    account.findings = [{"sentence": each.sentence[:500], "is_fine": each.is_fine} for each in worst_first]
    account.checked_at = timezone.now()
    changes = {"findings": account.findings, "checked_at": account.checked_at}
    ChannelAccount.objects.filter(pk=account.pk, client=account.client_id).update(**changes)


def resume(account: ChannelAccount) -> int:
    """Send from the account again and return how many messages are queued for it.

    Call it after its credentials changed, or when the provider accepts the account again.
    """
    _save_healthy(account)
    SendPause.objects.filter(channel_account=account).delete()
    SendCircuit.objects.filter(client=account.client_id, channel_account=account).delete()
    return count_queued(account)


def open_circuit(account: ChannelAccount) -> SendCircuit | None:
    """Return the account's circuit if its provider cannot be reached, so that its messages wait; else None."""
    return SendCircuit.objects.filter(
        client=account.client_id, channel_account=account, opened_at__isnull=False
    ).first()


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
