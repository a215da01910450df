"""The events that webhooks report, the same for every provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from channels_out.kinds import AddressKind, ReceiptStatus


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a message. Replies go to `address`; `phone` is E.164, if the channel reveals one.

    `aliases` are further addresses of the same person on this channel, as (kind, address).
    """

    address: str
    kind: AddressKind
    phone: str | None = None
    name: str | None = None
    aliases: tuple[tuple[AddressKind, str], ...] = ()


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A message of a person, which becomes a chunk. `text` is never blank: other contents have a readable stand-in.

    `kind` is the provider's word for its type ("text", "image", "location"). `metadata` is plain JSON, with keys that
    each adapter documents. `intent` is the provider's own reading, on which it has acted: `optout`, `optin`, or ''.
    """

    account: str
    message_id: str
    sender: Sender
    text: str
    occurred_at: datetime | None = None
    kind: str = "text"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    intent: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The delivery status of a message that we sent. `our_message_id` is our own id, if the provider returns it.

    sequence        counts the receipts of one message, if the provider counts them: the higher one is newer
    account_broken  the account is refused: every other send will fail too
    opted_out       the provider blocks our messages to this person, who opted out there
    """

    account: str
    provider_message_id: str
    status: ReceiptStatus
    occurred_at: datetime | None = None
    our_message_id: str | None = None
    code: str = ""
    reason: str = ""
    sequence: int | None = None
    account_broken: bool = False
    opted_out: bool = False


@dataclass(frozen=True, slots=True)
class WatermarkReceipt:
    """The delivery status of all messages that we sent to this person until a moment. It names no message."""

    account: str
    sender: str
    status: ReceiptStatus
    until: datetime


@dataclass(frozen=True, slots=True)
class AddressChange:
    """An address of a person that was replaced by another of the same kind. `before` is no longer theirs."""

    kind: AddressKind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Unhandled:
    """An item that is no turn of the conversation. It is kept with its reason, so that it can be replayed.

    account   '' if the payload names none
    kind      the provider's word for it ("reaction")
    reason    our word: `not_a_turn`, `unknown_type`, `malformed`, `echo`
    raw       the provider's payload narrowed to this item: as the body of a request, `parse` gives this event again
    moved     the addresses of one person that were replaced
    """

    account: str
    kind: str
    reason: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    message_id: str = ""
    moved: tuple[AddressChange, ...] = ()


Event = InboundMessage | Receipt | WatermarkReceipt | Unhandled
