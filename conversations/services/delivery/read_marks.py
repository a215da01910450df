"""Read marks: show a person that their message was read and that a reply is being written."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from uuid import UUID

from channels_out import registry
from channels_out.contract import Account, Adapter, InboundReference
from channels_out.errors import SendError
from conversations.models import ChannelAccount, Chunk
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.sql import PreparedSelect
from conversations.services.tenants.channel_accounts import adapter_of, as_account

log = logging.getLogger(__name__)

TIMEOUT = (2.0, 3.0)  # seconds to connect and to wait for the answer: a late mark is worth nothing


@dataclass(frozen=True, slots=True)
class ReadMark:
    """A read mark to be sent: all that the network call needs, nothing of the database."""

    adapter: Adapter
    account: Account
    answered: InboundReference
    is_proposed: bool = False  # what the assistant writes is not sent by itself

    def show(self, *, typing: bool) -> None:
        """Send the mark to the provider, with the typing indicator if the assistant is `typing` what it sends itself.

        A refusal is only logged.
        """
        self.show_colleague(typing=typing and not self.is_proposed)

    def show_colleague(self, *, typing: bool) -> None:
        """Send the mark to the provider, with the typing indicator if a colleague is `typing`.

        A refusal is only logged.
        """
        try:
            self.adapter.mark_read(self.account, self.answered, typing=typing)
        except SendError as error:
            log.info("read mark refused: provider=%s code=%s", self.adapter.provider, error.code)


_ACCOUNT = PreparedSelect(
    f"""
    SELECT {{a}}, {{k}}, d.address, COALESCE(o.proposes, false)
    FROM conversations s
    JOIN channel_accounts a ON a.id = s.channel_account_id AND a.is_active AND a.health = 'ok'
    LEFT JOIN assistants o ON o.id = s.assistant_id
    JOIN contact_identities d ON d.client_id = s.client_id AND d.id = s.device_id
    JOIN LATERAL (
        SELECT * FROM conversation_chunks c
        WHERE c.client_id = s.client_id AND c.conversation_id = s.id
          AND c.role IN ({", ".join(f"'{role}'" for role in SPOKEN_BY_PEOPLE)})
        ORDER BY c.position DESC LIMIT 1) k ON true
    WHERE s.client_id = $2 AND s.id = $1
    """,
    a=ChannelAccount,
    k=Chunk,
)


def has_marks(channel: str) -> bool:
    """Return whether any provider on the channel shows read marks."""
    return any(adapter.marks_read for adapter in registry.adapters_of(channel))


def mark_for_newest(client_id: UUID, conversation_id: UUID) -> ReadMark | None:
    """Return the mark for the person's newest message; None if its channel has no marks or did not deliver it."""
    found = _ACCOUNT.first(conversation_id, client_id)
    if found is None:
        return None
    account, newest, address, is_proposed = found
    try:
        adapter = adapter_of(account)
    except LookupError:
        return None
    if not adapter.marks_read:
        return None
    if not was_delivered_by(account, newest):
        return None
    answered = InboundReference(newest.message_id, address)
    return ReadMark(adapter, replace(as_account(account), timeout=TIMEOUT), answered, is_proposed)


def was_delivered_by(account: ChannelAccount, chunk: Chunk) -> bool:
    """Return whether the account's provider delivered the chunk, and so knows its message id."""
    return chunk.dedupe_key is not None and chunk.dedupe_key == dedupe_key(account.key, chunk.message_id)
