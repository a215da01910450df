"""The interface of every simulator: compose what the provider posts, and answer as the provider does.

A simulator is the provider's end of one account: it composes webhooks and signs them with the account's own secret,
checks the credentials of our sends, and answers them, if told so with a fault. It uses no clock, no network and no
database: Convo serves it (conversations/endpoints/simulated_providers.py), and tests put it behind a server of their
own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from channels_out.contract import Account, InboundRequest
from channels_out.http import HttpAnswer
from channels_out.kinds import Channel, MediaKind, ReceiptStatus
from channels_out.simulators.people import SimulatedPerson
from channels_out.simulators.phone_files import MediaRequest, PhoneFile


class InjectedFault(StrEnum):
    """The ways in which a send can fail at the provider."""

    THROTTLED = "throttled"  # 429, with Retry-After
    ERROR = "error"  # 500
    SILENT = "silent"  # accepts the message and never answers
    UNDELIVERABLE = "undeliverable"  # refuses this message for good
    REFUSED = "refused"  # refuses the account's credentials


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """A message that a person writes or says. `at` is its time; on voice, `call` is the call's id and `path` the
    address for its next turn. With a `file`, the text is its caption, or empty."""

    text: str
    message_id: str
    at: datetime
    call: str = ""
    path: str = ""
    file: PhoneFile | None = None


class Gesture(StrEnum):
    """The deeds of a person besides writing, and of a colleague elsewhere."""

    REACT = "react"  # with an emoji, to a message of ours
    PRESS = "press"  # a choice below a message of ours
    EDIT = "edit"  # their own message
    DELETE = "delete"
    ECHO = "echo"  # a colleague writes in the provider's own app or inbox


@dataclass(frozen=True, slots=True)
class PlayedGesture:
    """A gesture. `about` is the id of the message that it is about, `text` the emoji, the new words, or the title of
    the choice, whose id is `choice`. `message_id` is the gesture's own id."""

    gesture: Gesture
    about: str
    text: str
    message_id: str
    at: datetime
    choice: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """The file of an accepted message: the id of an upload, or the link under which the provider fetches it."""

    kind: str
    media_id: str = ""
    link: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that the provider accepted. `report_to` is the path to which we asked it to report, if we did;
    `sequence` is the number of earlier reports; `choices` are those below it, as (id, title)."""

    message_id: str
    to: str
    text: str
    our_message_id: str = ""
    reply_to: str = ""
    report_to: str = ""
    sequence: int = 0
    choices: tuple[tuple[str, str], ...] = ()
    file: AcceptedFile | None = None


@dataclass(frozen=True, slots=True)
class UnsignedWebhook:
    """A webhook before it is signed. `path` begins with a slash and may have a query."""

    path: str
    body: bytes
    content_type: str = "application/json"
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class SimulatedResponse:
    """The provider's answer. `taken` is the message that it accepted, if any; if `silent`, the answer is never sent.
    `uploaded` is the id that it gave to the file of an upload."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    taken: AcceptedMessage | None = None
    silent: bool = False
    uploaded: str = ""


@dataclass(frozen=True, slots=True)
class SpokenInstruction:
    """Our response to a webhook of a call, as the person experiences it.

    text      the words that are spoken
    path      the address to which the person's next words are posted
    silence   the address to which it is posted that they said nothing
    at_once   the provider posts to `path` by itself, after `wait` seconds
    over      the call has ended
    """

    text: str = ""
    path: str = ""
    silence: str = ""
    at_once: bool = False
    wait: float = 0.0
    over: bool = False


class Simulator(ABC):
    """One provider on one channel. Stateless.

    provider, channel   those of the adapter
    receipts            the statuses that the provider reports
    faults              the faults that can be injected
    gestures            what a person can do besides writing
    is_call             people call, and our reply is the response to the webhook
    echoes              the provider reports `sent` at once for every message that it accepts
    most_bytes          the kinds of files that a person can send, and the most bytes of one
    captions            the kinds of files that a person can send with words below them
    """

    provider: ClassVar[str]
    channel: Channel
    receipts: ClassVar[tuple[ReceiptStatus, ...]] = (ReceiptStatus.DELIVERED, ReceiptStatus.READ, ReceiptStatus.FAILED)
    faults: ClassVar[tuple[InjectedFault, ...]] = tuple(InjectedFault)
    gestures: ClassVar[tuple[Gesture, ...]] = ()
    is_call: ClassVar[bool] = False
    echoes: ClassVar[bool] = False
    most_bytes: ClassVar[Mapping[MediaKind, int]] = {}
    captions: ClassVar[frozenset[MediaKind]] = frozenset()

    # --- an account

    @abstractmethod
    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return the address and the credentials of a new account, as the provider would issue them."""

    @abstractmethod
    def address_of(self, person: SimulatedPerson) -> str:
        """Return the person's address at the provider, to which replies are sent."""

    # --- what the provider posts

    @abstractmethod
    def new_message_id(self) -> str:
        """Return a new id of a person's message (on voice: of a call)."""

    @abstractmethod
    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the webhook for a message of the person."""

    def gesture(self, account: Account, person: SimulatedPerson, played: PlayedGesture) -> UnsignedWebhook:
        """Return the webhook for a gesture of the person. Raises LookupError if the provider reports no such one."""
        raise LookupError(f"{self.provider} reports no {played.gesture}.")

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """Return the webhook for a message's status. Raises LookupError if the provider does not report this status."""
        raise LookupError(f"{self.provider} reports no {status}.")

    def call(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """Return the webhook for the beginning of a call. Raises LookupError on channels without calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def continuation(self, account: Account, person: SimulatedPerson, call: str, path: str) -> UnsignedWebhook:
        """Return the webhook that follows a redirect of ours. Raises LookupError on channels without calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def hang_up(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """Return the webhook for the end of a call by the person. Raises LookupError on channels without calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def heard(self, answer: HttpAnswer) -> SpokenInstruction:
        """Return our response as the person hears it; empty on channels without calls."""
        return SpokenInstruction()

    @abstractmethod
    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """Return the headers with which the provider posts the webhook at this time to the public address `url`."""

    def with_wrong_secret(self, account: Account) -> Account:
        """Return the account with other credentials, to sign webhooks that must be refused."""
        return replace(account, credentials={name: f"wrong-{value}" for name, value in account.credentials.items()})

    # --- what the provider answers; a request's `url` is the part after the account's base URL, with its query

    @abstractmethod
    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request has the account's credentials."""

    @abstractmethod
    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request sends a message to a person."""

    @abstractmethod
    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the provider's answer without a fault: success, or an error if the request is invalid."""

    @abstractmethod
    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return the provider's answer with a fault."""

    def media_request(self, account: Account, request: InboundRequest) -> MediaRequest | None:
        """Return which file of a person's the request asks for; None if it asks for none."""
        return None

    def media_record(self, account: Account, file: PhoneFile) -> SimulatedResponse:
        """Return the record with the file's link. Raises LookupError where webhooks have the link itself."""
        raise LookupError(f"{self.provider} has no records of files.")

    def answer(self, account: Account, request: InboundRequest, fault: InjectedFault | None) -> SimulatedResponse:
        """Return the provider's answer to a request, with a fault if one is given."""
        if not self.knows(account, request):
            return self.failure(InjectedFault.REFUSED)
        if fault and fault is not InjectedFault.SILENT:
            return self.failure(fault)
        return replace(self.accept(account, request), silent=fault is InjectedFault.SILENT)
