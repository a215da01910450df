"""Showing a person that their message was read, and that a reply is being written."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from uuid import UUID

from channels_out.contract import Account, Adapter, InboundReference
from channels_out.errors import SendError
from conversations.models import ChannelAccount, Chunk
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.sql import PreparedSelect
from conversations.services.tenants.channel_accounts import adapter_of, as_account

log = logging.getLogger(__name__)

PATIENCE = (2.0, 3.0)  # seconds to connect and to wait: a mark that is late is worth nothing


@dataclass(frozen=True, slots=True)
class ReadMark:
    """A mark that may go now: all that the network needs, nothing of the database."""

    adapter: Adapter
    account: Account
    answered: InboundReference

    def show(self, *, typing: bool) -> None:
        """Wait for the provider. Nothing follows from its refusal."""
        try:
            self.adapter.mark_read(self.account, self.answered, typing=typing)
        except SendError as error:
            log.info("read mark refused: provider=%s code=%s", self.adapter.provider, error.code)


_ACCOUNT = PreparedSelect(
    """
    SELECT {a}, d.address
    FROM conversations s
    JOIN channel_accounts a ON a.id = s.channel_account_id AND a.is_active AND a.health = 'ok'
    JOIN contact_identities d ON d.id = s.device_id
    WHERE s.id = $1
    """,
    a=ChannelAccount,
)


def of_newest(conversation_id: UUID) -> ReadMark | None:
    """The mark for the person's newest message, where its channel has such marks and brought the message itself."""
    found = _ACCOUNT.first(conversation_id)
    if found is None:
        return None
    account, address = found
    try:
        adapter = adapter_of(account)
    except LookupError:
        return None
    if not adapter.marks_read:
        return None
    theirs = Chunk.objects.filter(conversation=conversation_id, role__in=SPOKEN_BY_PEOPLE)
    newest = theirs.order_by("-position").first()
    if newest is None or not came_from(account, newest):
        return None
    answered = InboundReference(newest.message_id, address)
    return ReadMark(adapter, replace(as_account(account), timeout=PATIENCE), answered)


def came_from(account: ChannelAccount, chunk: Chunk) -> bool:
    """Whether the account's provider delivered the chunk, and so knows its message id."""
    return chunk.dedupe_key is not None and chunk.dedupe_key == dedupe_key(str(account.pk), chunk.message_id)
