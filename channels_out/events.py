"""The events that webhooks report, the same for every provider.

A message and its sender are named tuples: making a frozen dataclass of nine fields costs 1.2 µs more. To parse a whole
payload takes 1.8 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from channels_out.kinds import ActivityKind, AddressKind, MediaKind, ReceiptStatus


class Sender(NamedTuple):
    """The sender of a message. Replies go to `address`; `phone` is E.164, if the channel reveals one.

    `aliases` are further addresses of the same person on this channel, as (kind, address).
    """

    address: str
    kind: AddressKind
    phone: str | None = None
    name: str | None = None
    aliases: tuple[tuple[AddressKind, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MediaReference:
    """A file of a message, which is fetched from the provider afterwards.

    source          the provider's id of it, or its URL
    content_type, name      as the sender says, which may be a lie; '' if they say nothing
    """

    kind: MediaKind
    source: str
    content_type: str = ""
    name: str = ""


class InboundMessage(NamedTuple):
    """A message of a person, which becomes a chunk. `text` is never blank: other contents have a readable stand-in.

    `kind` is the provider's word for its type ("text", "image", "location"). `metadata` is plain JSON, with keys that
    each adapter documents. `intent` is the provider's own reading, on which it has acted: `optout`, `optin`, or ''.
    `media` are its files.
    """

    account: str
    message_id: str
    sender: Sender
    text: str
    occurred_at: datetime | None = None
    kind: str = "text"
    metadata: Mapping[str, Any] = MappingProxyType({})
    intent: str = ""
    media: tuple[MediaReference, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The delivery status of a message that we sent. `our_message_id` is our own id, if the provider returns it.

    sequence        counts the receipts of one message, if the provider counts them: the higher one is newer
    account_broken  the account is refused: every other send will fail too
    opted_out       the provider blocks our messages to this person, who opted out there
    outside_window  the person last wrote too long ago for free text; a template may be sent
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
    outside_window: bool = False


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
class TemplateNews:
    """A change of a template, in the provider's words; '' stands for what did not change."""

    name: str
    language: str
    status: str = ""
    quality: str = ""
    category: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AccountNotice:
    """A provider's word on an account itself: a sentence for staff, and whether the account can send now.

    `health` is `broken`, `ok`, or '' where the event says nothing of that. `template` is what it says of a template.
    """

    sentence: str
    health: Literal["", "broken", "ok"] = ""
    template: TemplateNews | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that a person did which is no message: with a message, or in the conversation.

    about       the provider's id of the message that it is about; '' if it is about the conversation
    text        reaction: the emoji, '' if it was taken back; edit: the new text; else a phrase for people to read
    message_id  the provider's id of the activity itself; '' if it has none
    metadata    plain JSON, with keys that each adapter documents
    """

    kind: ActivityKind
    sender: Sender
    about: str = ""
    text: str = ""
    message_id: str = ""
    occurred_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ColleagueMessage:
    """A message that a colleague wrote to the person `to` by another program than Convo.

    program             its name, for people to read
    metadata, media     as of an InboundMessage
    """

    to: Sender
    text: str
    message_id: str
    program: str
    occurred_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[MediaReference, ...] = ()


@dataclass(frozen=True, slots=True)
class MarketingPreference:
    """A person's choice, at the provider, whether they get marketing messages of the account.

    `change_id` is the same each time that the choice is delivered.
    """

    sender: Sender
    stop: bool
    change_id: str


@dataclass(frozen=True, slots=True)
class Unhandled:
    """An item that is no turn of the conversation. It is kept with its reason, so that it can be replayed.

    If `happened` says what happened and the conversation is known, it is stored there instead.

    account   '' if the payload names none
    kind      the provider's word for it ("reaction")
    reason    our word: `not_a_turn`, `unknown_type`, `malformed`, `echo`
    raw       the provider's payload narrowed to this item: as the body of a request, `parse` gives this event again
    moved     the addresses of one person that were replaced
    marketing a person's choice about marketing messages
    notice    what it tells of the account; `business` is the business account that it names in place of the address
    """

    account: str
    kind: str
    reason: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    message_id: str = ""
    moved: tuple[AddressChange, ...] = ()
    marketing: MarketingPreference | None = None
    notice: AccountNotice | None = None
    business: str = ""
    occurred_at: datetime | None = None
    happened: Activity | ColleagueMessage | None = None


Event = InboundMessage | Receipt | WatermarkReceipt | Unhandled
