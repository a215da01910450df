"""What a webhook can tell us, the same whatever provider it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from channels_out.kinds import AddressKind, ReceiptStatus


@dataclass(frozen=True, slots=True)
class Sender:
    """Who wrote. `address` is exactly what a reply is sent to; `phone` is E.164 where the channel reveals one.

    `aliases` are further addresses of the same person on this channel, as (kind, address).
    """

    address: str
    kind: AddressKind
    phone: str | None = None
    name: str | None = None
    aliases: tuple[tuple[AddressKind, str], ...] = ()


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """Something a person said: it becomes a chunk. `text` is never blank; what is not text has a readable stand-in.

    `kind` is the provider's word for what it is ("text", "image", "location"). `metadata` holds plain JSON; each
    adapter says which keys. `intent` is what the provider itself took it for and has acted on: `optout`, `optin`.
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
    """What became of a message that we sent. `our_message_id` is the id we gave along, if the provider returns it.

    `sequence` counts the receipts of one message, where the provider counts them: of two the higher is the newer.
    A failure says more where it is no fault of this message: `account_broken`, the account is refused, and every other
    send will fail too; `opted_out`, the provider blocks what we send to this person, who told it so.
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
    """Everything that we sent to this person until then was delivered, or read. The provider does not say which."""

    account: str
    sender: str
    status: ReceiptStatus
    until: datetime


@dataclass(frozen=True, slots=True)
class AddressChange:
    """A person's address of the kind became another: `before` is theirs no more."""

    kind: AddressKind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Unhandled:
    """Something that arrived and is not a turn of the conversation: kept with its reason, so that it can be replayed.

    `kind` is the provider's word for it ("reaction"); `reason` ours: `not_a_turn`, `unknown_type`, `malformed`, `echo`.
    `raw` is the provider's payload narrowed to this one item: as the body of a request, `parse` gives this event again.
    `account` is '' where the payload names none. `moved`: the addresses of one person that it says are others now.
    """

    account: str
    kind: str
    reason: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    message_id: str = ""
    moved: tuple[AddressChange, ...] = ()


Event = InboundMessage | Receipt | WatermarkReceipt | Unhandled
