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
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.simulators.people import SimulatedPerson


class InjectedFault(StrEnum):
    """How a send goes wrong at the provider."""

    THROTTLED = "throttled"  # 429, with Retry-After
    ERROR = "error"  # 500
    SILENT = "silent"  # takes the message and never answers
    UNDELIVERABLE = "undeliverable"  # refuses this message for good
    REFUSED = "refused"  # refuses the account's credentials


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """What a person says. `at` is when they wrote it; `call` and `path` are the call's id and where its next turn is
    posted, on voice."""

    text: str
    message_id: str
    at: datetime
    call: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that the provider accepted. `report_to` is the path to which we asked it to report, where we did;
    `sequence` counts what was reported before."""

    message_id: str
    to: str
    text: str
    our_message_id: str = ""
    reply_to: str = ""
    report_to: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class UnsignedWebhook:
    """What the provider posts, before it is signed. `path` begins with a slash and may have a query."""

    path: str
    body: bytes
    content_type: str = "application/json"
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class SimulatedResponse:
    """What the provider answers. `taken` is what it accepted; a silent one never sends the rest."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    taken: AcceptedMessage | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class SpokenInstruction:
    """What the answer to a webhook tells the person (voice): words, and what comes next.

    `path` is where the person's next words are posted, and `silence` where it is posted that they said none. Where
    `at_once`, the provider posts to `path` by itself after `wait` seconds. `over`: the call has ended.
    """

    text: str = ""
    path: str = ""
    silence: str = ""
    at_once: bool = False
    wait: float = 0.0
    over: bool = False


class Simulator(ABC):
    """One provider on one channel. Stateless.

    provider, channel   those of the adapter that it is the other end of
    receipts            what the provider can report of a message
    is_call             people call and talk, and the answer comes back in the webhook's own answer
    echoes              that it took a message it says at once, unasked, by a `sent` of its own
    """

    provider: ClassVar[str]
    channel: Channel
    receipts: ClassVar[tuple[ReceiptStatus, ...]] = (ReceiptStatus.DELIVERED, ReceiptStatus.READ, ReceiptStatus.FAILED)
    faults: ClassVar[tuple[InjectedFault, ...]] = tuple(InjectedFault)
    is_call: ClassVar[bool] = False
    echoes: ClassVar[bool] = False

    # --- an account

    @abstractmethod
    def new_account(self) -> tuple[str, dict[str, str]]:
        """The address and the credentials of a fresh account, as the provider would give them out."""

    @abstractmethod
    def address_of(self, person: SimulatedPerson) -> str:
        """How the provider names the person to us: what a reply is sent to."""

    # --- what the provider posts

    @abstractmethod
    def new_message_id(self) -> str:
        """An id as the provider gives to a person's message (on voice: to a call)."""

    @abstractmethod
    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """What the provider posts when the person says this."""

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """What the provider posts when this became of the message. Raises LookupError for what it does not report."""
        raise LookupError(f"{self.provider} reports no {status}.")

    def call(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """What the provider posts when the person calls. Raises LookupError on channels without calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def continuation(self, account: Account, person: SimulatedPerson, call: str, path: str) -> UnsignedWebhook:
        """What the provider posts by itself where our answer sent it on. Raises LookupError if there are no calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def hang_up(self, account: Account, person: SimulatedPerson, call: str) -> UnsignedWebhook:
        """What the provider posts when the person hangs up. Raises LookupError on channels without calls."""
        raise LookupError(f"There are no calls through {self.provider}.")

    def heard(self, answer: HttpAnswer) -> SpokenInstruction:
        """What our answer to a webhook tells the person; nothing but on voice."""
        return SpokenInstruction()

    @abstractmethod
    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """The headers with which the provider posts it now to the public address `url`."""

    def with_wrong_secret(self, account: Account) -> Account:
        """The account as somebody would sign for it who does not know its secrets."""
        return replace(account, credentials={name: f"wrong-{value}" for name, value in account.credentials.items()})

    # --- what the provider answers; a request's url is what comes after the account's base URL, with its query

    @abstractmethod
    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Whether the request has the account's credentials."""

    @abstractmethod
    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Whether the request sends a message to a person, rather than asks something."""

    @abstractmethod
    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """What the provider answers when nothing is wrong with it; with a request that it does not take, an error."""

    @abstractmethod
    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """What the provider answers when this is wrong."""

    def answer(self, account: Account, request: InboundRequest, fault: InjectedFault | None) -> SimulatedResponse:
        """What the provider answers, well or as badly as it is told."""
        if not self.knows(account, request):
            return self.failure(InjectedFault.REFUSED)
        if fault and fault is not InjectedFault.SILENT:
            return self.failure(fault)
        return replace(self.accept(account, request), silent=fault is InjectedFault.SILENT)
