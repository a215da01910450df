"""Channel accounts that this process has met: to look one up and open its credentials costs more than to append the
message that it brings.

What is known here may be out of date, so it settles nothing by itself: whoever acts on it says which `version` of the
rows it was read from, and PostgreSQL does nothing if another one counts by then (append.py). A rotated secret, an
account that is switched off, a client that is changed: from the next message on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models.expressions import RawSQL

from channels_out.contract import Account, Adapter
from conversations.models import ChannelAccount
from conversations.services.tenants.channel_accounts import as_account

MOST = 1_000

# A row's version is where it lies and who wrote it: PostgreSQL never changes a row in place.
ACCOUNT_VERSION = "a.xmin::text || a.ctid::text || c.xmin::text || c.ctid::text"
VERSION = RawSQL(ACCOUNT_VERSION.replace("a.", "channel_accounts.").replace("c.", "clients."), [])  # noqa: S611


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """An active account with its client, as a row and as a plain value, and the version of both rows."""

    row: ChannelAccount
    plain: Account
    version: str


_known: dict[tuple[str, str, str], KnownAccount] = {}


def remember(accounts: Iterable[Any]) -> None:
    """The accounts, read with their client and annotated with their VERSION, are known from now on."""
    for account in accounts:
        if len(_known) >= MOST:
            _known.clear()
        address = (account.provider, account.channel, account.address)
        _known[address] = KnownAccount(account, as_account(account), account.version)


def find(adapter: Adapter, address: str) -> KnownAccount | None:
    """The account that the adapter's provider calls so, as it was when it was last read."""
    return _known.get((adapter.provider, adapter.channel, address))
