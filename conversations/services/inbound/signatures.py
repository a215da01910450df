"""Signatures: which accounts signed a provider's request. They are checked over the raw bytes, before a body is parsed.

One secret often signs for many accounts, and a stranger may claim to be any of them. So each secret is tried once for a
request, and only so many bytes are hashed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from django.db.models import QuerySet
from django.utils import timezone

from channels_out.contract import Account, Adapter, InboundRequest
from channels_out.errors import InboundError
from conversations.models import ChannelAccount
from conversations.services.inbound import unprocessed
from conversations.services.tenants import account_cache
from conversations.services.tenants.channel_accounts import as_account

log = logging.getLogger(__name__)

MOST_SECRETS_TRIED = 500
MOST_BYTES_HASHED = 50_000_000


def active_accounts(adapter: Adapter) -> QuerySet[ChannelAccount]:
    """Return the active accounts of the adapter's provider and channel."""
    return ChannelAccount.objects.select_related("client", "assistant").filter(
        provider=adapter.provider, channel=adapter.channel, is_active=True, client__is_active=True
    )


class Signatures:
    """The signature of one request, checked for any number of accounts."""

    __slots__ = ("_adapter", "_fits", "_request", "accounts", "refused", "versions")

    def __init__(self, adapter: Adapter, request: InboundRequest) -> None:
        """accounts: those that signed, by address; versions: theirs as they were read. refused: those that did not."""
        self._adapter, self._request = adapter, request
        self._fits: dict[str, bool] = {}
        self.accounts: dict[str, ChannelAccount] = {}
        self.versions: dict[str, str] = {}
        self.refused: dict[str, ChannelAccount] = {}

    @property
    def _most(self) -> int:
        """Return how many secrets are tried for the request."""
        return max(min(MOST_SECRETS_TRIED, MOST_BYTES_HASHED // max(len(self._request.body), 1)), 1)

    def fits(self, account: Account) -> bool:
        """Return whether the account's secret signed the request; False for any other once too many were tried."""
        secret = account.credentials.get(self._adapter.signed_with, "")
        known = self._fits.get(secret)
        if known is None:
            if self._fits and len(self._fits) >= self._most:
                return False
            known = self._fits[secret] = self._verified(account)
        return known

    def _verified(self, account: Account) -> bool:
        try:
            self._adapter.verify(self._request, account)
        except InboundError:
            return False
        return True

    def read(self, addresses: Iterable[str]) -> None:
        """Read the accounts with these addresses, as they are now, and put each into `accounts` or `refused`."""
        wanted = [each for each in addresses if each not in self.accounts and each not in self.refused]
        if not wanted:
            return
        for account in (
            active_accounts(self._adapter).filter(address__in=wanted).annotate(version=account_cache.VERSION)
        ):
            (self.accounts if self.fits(as_account(account)) else self.refused)[account.address] = account
            self.versions[account.address] = account.version
        account_cache.remember(self.accounts.values())

    def reread(self, addresses: Iterable[str]) -> None:
        """Read the accounts with these addresses again: their rows have changed."""
        changed = list(addresses)
        for address in changed:
            self.accounts.pop(address, None)
        self.read(changed)

    def of_business(self, business: str) -> list[ChannelAccount]:
        """Return the accounts that signed the request and belong to the business account.

        If none is known to, it is the only account that signed it, as long as that one's own is not known.
        """
        ours = active_accounts(self._adapter)
        if business and (known := [each for each in ours.filter(business_id=business) if self.fits(as_account(each))]):
            return known
        signed = [each for each in ours[: self._most] if self.fits(as_account(each))]
        return signed if len(signed) == 1 and not signed[0].business_id else []

    def require(self) -> None:
        """Return if an account of ours signed the request: one that was read, or any if none was.

        A payload that names no account of ours may still be the provider's own: some events of Meta's name no number.
        Raises InboundError (`invalid_signature`), and counts the request as refused.
        """
        if self.accounts:
            return
        if self.refused or not self._fits_any():
            self.count_refused()
            raise InboundError("The signature does not fit.", code="invalid_signature")

    def count_refused(self, addresses: Collection[str] | None = None) -> None:
        """Count the request as refused for the accounts that did not sign it, or for none of ours if none was read.

        addresses: of those that count; None for all
        """
        counted: list[ChannelAccount | None] = [
            each for address, each in self.refused.items() if addresses is None or address in addresses
        ]
        for account in counted or [None]:
            log.warning(
                "signature refused: %s", f"account={account.pk}" if account else f"provider={self._adapter.provider}"
            )
            unprocessed.count_refused(self._adapter, account, timezone.now())

    def _fits_any(self) -> bool:
        accounts = active_accounts(self._adapter).select_related(None)[: self._most]
        return any(self.fits(as_account(account)) for account in accounts)


def signer(adapter: Adapter, request: InboundRequest) -> ChannelAccount | None:
    """Return the account that signed a request about a single account; None if the request names none of ours.

    Raises InboundError (`invalid_signature`).
    """
    signatures = Signatures(adapter, request)
    signatures.read(adapter.claimed(request))
    signatures.require()
    return next(iter(signatures.accounts.values()), None)
