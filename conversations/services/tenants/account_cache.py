"""A cache of channel accounts: reading one and decrypting its credentials costs more than appending a message.

An entry may be out of date, so it settles nothing by itself. Every statement that uses it names the `version` of the
rows it was read from and does nothing if the rows have changed since (core/appending.py). So a rotated secret, an
account that is switched off or a client that is changed counts from the next message on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models.expressions import RawSQL

from channels_out.contract import Account, Adapter
from conversations.models import ChannelAccount
from conversations.services.core.appending_sql import ACCOUNT_VERSION
from conversations.services.core.cluster import is_cluster
from conversations.services.tenants.channel_accounts import as_account

MOST = 1_000

VERSION = RawSQL(ACCOUNT_VERSION.replace("a.", "channel_accounts.").replace("c.", "clients."), [])  # noqa: S611 # nosec B611


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """An active account, as a row with its client and as a plain value, and the version of both rows."""

    row: ChannelAccount
    plain: Account
    version: str


_known: dict[tuple[str, str, str], KnownAccount] = {}


def remember(accounts: Iterable[Any]) -> None:
    """Put accounts, read with their client and annotated with VERSION, into the cache.

    Nothing is cached in a cluster: where a row lies differs from server to server, so VERSION would never fit.
    """
    if is_cluster():
        return
    for account in accounts:
        if len(_known) >= MOST:
            _known.clear()
        address = (account.provider, account.channel, account.address)
        _known[address] = KnownAccount(account, as_account(account), account.version)


def find(adapter: Adapter, address: str) -> KnownAccount | None:
    """Return the cached account with this address at the adapter's provider, or None."""
    return _known.get((adapter.provider, adapter.channel, address))
