"""What every provider's adapter promises. Adapters translate, and nothing else."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from channels_out.errors import InboundError, SendError
from channels_out.events import Event
from channels_out.kinds import AddressKind, Channel, ReceiptStatus
from channels_out.shapes import clean_text, load_json

# What a request that is no JSON object is kept as.
BODY, QUERY = "request_body", "request_query"


@dataclass(frozen=True, slots=True)
class InboundRequest:
    """A webhook as it arrived. `url` is the public address with its query; header names are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    _json: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def json(self) -> Any:
        """The body as JSON, parsed once however often it is asked for. Raises InboundError (`malformed`)."""
        if not self._json:
            self._json.append(load_json(self.body))
        return self._json[0]


@dataclass(frozen=True, slots=True)
class Account:
    """A client's account at a provider, as a plain value. `base_url` is where its API is and `public_url` where the
    provider reaches us, both without a trailing slash; `timeout` is the seconds to connect and to wait for an answer
    (None: `http.TIMEOUT`). `private_networks` are those in which a server of the client's own may be although they are
    not public."""

    address: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    base_url: str = ""
    timeout: tuple[float, float] | None = None
    private_networks: tuple[str, ...] = ()
    public_url: str = ""

    def secrets(self, name: str) -> list[str]:
        """The values of a credential that may hold several, separated by commas or whitespace: the old and the new."""
        return self.credentials.get(name, "").replace(",", " ").split()


@dataclass(frozen=True, slots=True)
class Template:
    """A message that the provider has approved beforehand, by its name there and its language ("en_US")."""

    name: str
    language: str


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """One text to send. `message_id` is our own id of it; `reply_to` the provider's id of the message it answers, for
    those that can quote it; where there is a `template`, that is sent and the text is not."""

    message_id: str
    to: str
    to_kind: AddressKind
    text: str
    reply_to: str = ""
    template: Template | None = None


@dataclass(frozen=True, slots=True)
class InboundReference:
    """A person's message to which a reply is being written: the provider's id of it, and where it came from."""

    message_id: str
    sender: str


@dataclass(frozen=True, slots=True)
class SendResult:
    """The provider took it. `status` is what is known at once: sent, or delivered."""

    provider_message_id: str
    status: ReceiptStatus = ReceiptStatus.SENT


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """What to answer a provider's webhook or handshake with."""

    status: int = 200
    content_type: str = "text/plain"
    body: str = ""


class Adapter(ABC):
    """One provider on one channel. Stateless; safe to use from many threads.

    A webhook goes through it in this order: `recognises`, `addresses`, then `verify` for the account of **every**
    address that was named, then `parse`. One body can name several accounts while one secret signed it: events of an
    account that did not verify are not to be believed.

    provider              the word in `ChannelAccount.provider`
    title                 what staff call it
    address_name          what an account's address is there, for who sets one up
    channel               the channel it speaks
    text_limit            the longest text of one message, counted in `limit_unit`
    limit_unit            a unit of `splitting`: "characters", "utf-16 units" or "utf-8 bytes"
    credentials           names an account must have to send and to verify
    signed_in             the headers, in lower case, of which its webhooks carry one: a signature, or a secret of ours
    sends_idempotently    the provider takes our id as an idempotency key: an unclear send may be repeated
    reply_window          how long after a person last wrote free text may be sent to them; None: for ever
    sends_templates       outside the window a template may be sent
    marks_read            `mark_read` is to be called when a reply is begun
    counts_by_time        some of its receipts are `ReachedUntil`
    needs_base_url        the provider's end is a server of the client's own: an account must say where
    is_collected          the provider collects what is said with requests of its own: nothing is sent to it
    acknowledgement       what the provider reads as "taken" where it reads our answers; None: it looks at the status
    """

    provider: ClassVar[str]
    title: ClassVar[str] = ""
    address_name: ClassVar[str] = "address"
    channel: Channel
    text_limit: ClassVar[int]
    limit_unit: ClassVar[str] = "characters"
    credentials: ClassVar[tuple[str, ...]] = ()
    signature_headers: ClassVar[tuple[str, ...]] = ()
    sends_idempotently: ClassVar[bool] = False
    reply_window: ClassVar[timedelta | None] = None
    sends_templates: ClassVar[bool] = False
    marks_read: ClassVar[bool] = False
    reports_watermarks: ClassVar[bool] = False
    needs_base_url: ClassVar[bool] = False
    fetches_replies: ClassVar[bool] = False
    acknowledgement: ClassVar[WebhookResponse | None] = None

    @property
    def needs(self) -> list[str]:
        """What one must know to set up an account, in words; nothing where it needs no credentials."""
        return [self.address_name, *(name.replace("_", " ") for name in self.credentials)] if self.credentials else []

    def normal_address(self, written: str) -> str:
        """An account's address as the provider's payloads write it, from what a person typed."""
        return written.strip()

    def recognises(self, request: InboundRequest) -> bool:
        """Whether this provider, and none that is asked before it, can have sent the request: it is signed as its are,
        right or wrong."""
        return any(name in request.headers for name in self.signature_headers)

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> WebhookResponse | None:
        """The answer to the provider's GET that proves we own the address; None where it is no such request."""
        return None

    def addresses(self, request: InboundRequest) -> list[str]:
        """The account addresses that the payload names, unverified, each once, in order.

        Raises InboundError (`malformed`) if the body is no payload of this provider.
        """
        return []

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if the account's own secret signed the raw bytes. Raises InboundError (`invalid_signature`)."""
        raise InboundError(f"{self.provider} takes no webhooks.", code="invalid_signature")

    def parse(self, request: InboundRequest) -> list[Event]:
        """Every event of the batch, in order; what is not understood is `Unhandled`.

        Raises InboundError (`malformed`).
        """
        return []

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """The request as JSON to be kept: `parse` of what `replayed` makes of it gives the same events again.

        With an address: those of this account alone, by an adapter whose payloads can name several.
        """
        try:
            payload = request.json()
        except InboundError:
            payload = None
        if type(payload) is dict:
            return payload
        body = clean_text(request.body.decode("utf-8", "replace"))
        return {BODY: body, QUERY: {clean_text(name): clean_text(value) for name, value in request.query.items()}}

    def replayed(self, raw: Mapping[str, Any]) -> InboundRequest:
        """The request whose payload was kept: by `keep`, or in the `raw` of an Unhandled. It is not signed any more."""
        if raw.keys() == {BODY, QUERY}:
            return InboundRequest("POST", "", {}, raw[QUERY], raw[BODY].encode())
        return InboundRequest("POST", "", {}, {}, json.dumps(raw).encode())

    @abstractmethod
    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text. Raises SendError."""

    def mark_read(self, account: Account, answered: InboundReference, *, typing: bool) -> None:
        """The person sees that their message was read and, if `typing`, that a reply is being written: for some
        seconds, or until it comes.

        Raises SendError, of which nothing follows.
        """
        raise SendError(f"{self.provider} has no read marks.", code="not_supported")

    def check(self, account: Account) -> str:
        """Ask the provider whether it takes the account's credentials; nothing is sent to anybody.

        Returns what the provider calls the account. Raises SendError: `account_broken` where the credentials are
        refused, `not_supported` where the provider cannot be asked.
        """
        raise SendError(f"There is no way to ask {self.provider} about credentials.", code="not_supported")
