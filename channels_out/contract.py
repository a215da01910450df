"""The interface of every provider's adapter. Adapters translate, and do nothing else."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple

from channels_out.choices import ChoiceForm, Choices
from channels_out.errors import InboundError, SendError
from channels_out.events import Event
from channels_out.formatting import Formatting
from channels_out.kinds import AddressKind, Channel, MediaKind, ReceiptStatus
from channels_out.shapes import clean_text, load_json
from channels_out.templates import CatalogueTemplate

# The keys under which a request that is no JSON object is kept.
BODY, QUERY = "request_body", "request_query"
_UNREAD = object()


@dataclass(slots=True)
class InboundRequest:
    """A webhook request. `url` is the public address with its query; header names are in lower case.

    Nothing changes but what is read of its body, when it is asked for.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    _json: Any = field(default=_UNREAD, init=False, repr=False, compare=False)

    def json(self) -> Any:
        """Return the body as JSON, parsed once for all callers. Raises InboundError (`malformed`)."""
        if self._json is _UNREAD:
            try:
                self._json = load_json(self.body)
            except InboundError as error:
                self._json = error
        if type(self._json) is InboundError:
            raise self._json.with_traceback(None)
        return self._json


@dataclass(frozen=True, slots=True)
class Account:
    """A client's account at a provider, as a plain value.

    address             the account's address, as the provider's payloads write it
    credentials         by name, as text
    base_url            the provider's API, without a trailing slash
    timeout             seconds to connect, and to wait for an answer; None: `http.TIMEOUT`
    private_networks    networks that are not public and in which a server of the client's own may be
    public_url          our own address for the provider, without a trailing slash
    """

    address: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    base_url: str = ""
    timeout: tuple[float, float] | None = None
    private_networks: tuple[str, ...] = ()
    public_url: str = ""

    def secrets(self, name: str) -> list[str]:
        """Return the values of a credential: several, separated by commas or whitespace, while one is replaced."""
        return self.credentials.get(name, "").replace(",", " ").split()


@dataclass(frozen=True, slots=True)
class Template:
    """A message that the provider has approved beforehand, by its name there and its language ("en_US").

    components  its values, as the provider takes them (channels_out/templates.py)
    """

    name: str
    language: str
    components: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class OutboundFile:
    """A file to send.

    kind        in which form the provider takes it
    link        an address from which it can be fetched for some minutes
    read        returns its content; waits for the storage
    """

    kind: MediaKind
    content_type: str
    name: str
    size: int
    link: str = field(repr=False)
    read: Callable[[], bytes] = field(repr=False, compare=False)


class FileRule(NamedTuple):
    """A kind of file that a provider takes: of these types (none: of any), with at most so many bytes."""

    kind: MediaKind
    most_bytes: int
    types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """One text to send, or one file.

    message_id    our own id of it
    to, to_kind   the person's address and its kind
    reply_to      the provider's id of the message that it answers, for providers that can quote it
    template      sent instead of the text, if given
    choices       offered below the text, in one of the adapter's `choice_forms`
    file          sent instead of the text, if given
    """

    message_id: str
    to: str
    to_kind: AddressKind
    text: str
    reply_to: str = ""
    template: Template | None = None
    choices: Choices | None = None
    file: OutboundFile | None = None


@dataclass(frozen=True, slots=True)
class InboundReference:
    """A person's message to which a reply is being written: the provider's id of it, and the sender's address."""

    message_id: str
    sender: str


@dataclass(frozen=True, slots=True)
class SendResult:
    """A message that the provider accepted. `status` is known at once: sent, or delivered.

    aliases     further addresses of the recipient that the answer names, as (kind, address)
    """

    provider_message_id: str
    status: ReceiptStatus = ReceiptStatus.SENT
    aliases: tuple[tuple[AddressKind, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of one check of an account: a sentence for staff, which says what to do where it is not fine."""

    sentence: str
    is_fine: bool = True


@dataclass(frozen=True, slots=True)
class MediaLink:
    """A link from which a file can be fetched now. `size` is in bytes, 0 if the provider does not say."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int = 0


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """Our response to a provider's webhook or handshake."""

    status: int = 200
    content_type: str = "text/plain"
    body: str = ""


class Adapter(ABC):
    """One provider on one channel. Stateless; safe to use from many threads.

    A webhook passes in this order: `recognises`, `claimed`, then `verify` for the accounts that it claims to be for.
    Only a body that one of them signed is parsed: `addresses`, `verify` for the account of **every** address that is
    named, and `parse`. One body can name several accounts although one secret signed it: events of an account whose
    `verify` failed must be dropped.

    provider              the word in `ChannelAccount.provider`
    title                 its name for staff
    address_name          the provider's word for an account's address, shown when an account is set up
    channel               the channel that it serves
    text_limit            the longest text of one message, counted in `limit_unit`
    limit_unit            a unit of `splitting`: "characters", "utf-16 units" or "utf-8 bytes"
    choice_forms          the channel's forms of choices, the best first; choices that fit none are listed in the text
    formatting            the form in which an assistant's Markdown is sent
    credentials           the names of the credentials that an account needs to send and to verify
    signed_with           the one of them that `verify` checks
    signature_headers     headers, in lower case; every webhook has one of them: a signature, or a secret of ours
    sends_idempotently    the provider takes our id as an idempotency key: an unclear send may be repeated
    reply_window          how long free text may be sent after the person last wrote; None: without limit
    sends_templates       a template may be sent outside the window
    marketing_refusals    codes that say that the person wants no marketing messages from this account
    lists_templates       `templates` lists those of an account
    marks_read            `mark_read` is to be called when a reply is begun
    reports_watermarks    some of its receipts are `WatermarkReceipt`
    needs_base_url        the provider's API is a server of the client's own: an account must have its base URL
    fetches_replies       the provider requests replies itself: nothing is sent to it
    hears_colleagues      it reports what colleagues write in the provider's own app or inbox
    acknowledgement       our response for an accepted webhook, if the provider reads more than its status
    file_rules            the files that it takes, the best form first; none: a link to the file is sent as text
    """

    provider: ClassVar[str]
    title: ClassVar[str] = ""
    address_name: ClassVar[str] = "address"
    channel: Channel
    text_limit: ClassVar[int]
    limit_unit: ClassVar[str] = "characters"
    choice_forms: ClassVar[tuple[ChoiceForm, ...]] = ()
    formatting: Formatting = Formatting.PLAIN
    credentials: ClassVar[tuple[str, ...]] = ()
    signed_with: ClassVar[str] = ""
    signature_headers: ClassVar[tuple[str, ...]] = ()
    sends_idempotently: ClassVar[bool] = False
    reply_window: ClassVar[timedelta | None] = None
    sends_templates: ClassVar[bool] = False
    marketing_refusals: ClassVar[frozenset[str]] = frozenset()
    lists_templates: ClassVar[bool] = False
    marks_read: ClassVar[bool] = False
    reports_watermarks: ClassVar[bool] = False
    needs_base_url: ClassVar[bool] = False
    fetches_replies: ClassVar[bool] = False
    hears_colleagues: ClassVar[bool] = False
    acknowledgement: ClassVar[WebhookResponse | None] = None
    file_rules: ClassVar[tuple[FileRule, ...]] = ()

    def takes_files_to(self, address: str) -> bool:
        """Return whether files can be sent to the person's address."""
        return True

    def form_of_file(self, content_type: str, size: int) -> MediaKind | None:
        """Return the form in which the provider takes a file of this type and size in bytes; None if in none."""
        for rule in self.file_rules:
            if size <= rule.most_bytes and (not rule.types or content_type in rule.types):
                return rule.kind
        return None

    @property
    def needs(self) -> list[str]:
        """Return what an account needs to be set up, in words; nothing if it needs no credentials."""
        return [self.address_name, *(name.replace("_", " ") for name in self.credentials)] if self.credentials else []

    def limit_of(self, address: str) -> tuple[int, str]:
        """Return the longest text of one message from the account with this address, and the unit of that."""
        return self.text_limit, self.limit_unit

    def normal_address(self, written: str) -> str:
        """Return an account's address as the provider's payloads write it, from the form that staff typed."""
        return written.strip()

    def recognises(self, request: InboundRequest) -> bool:
        """Return True if the request has a signature header of this provider, valid or not.

        The registry asks the adapters of a channel in order; the first that recognises a request gets it.
        """
        return not request.headers.keys().isdisjoint(self.signature_headers)

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> WebhookResponse | None:
        """Return the response to the provider's GET that checks our address, or None for other requests."""
        return None

    def claimed(self, request: InboundRequest) -> list[str]:
        """Return the account addresses that the request seems to name, each once: a hint where to look for its secret.

        It reads the raw bytes and never parses them (`raw_claims`), so that a stranger's body costs nothing. It may
        return too much or too little; `addresses` is right. Raises nothing.
        """
        return []

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return the account addresses that the payload names, unverified, each once, in order.

        Raises InboundError (`malformed`) if the body is not a payload of this provider.
        """
        return []

    def businesses(self, request: InboundRequest) -> dict[str, str]:
        """Return the business account of each account address that the payload names, where it names both.

        Raises InboundError (`malformed`).
        """
        return {}

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if one of the account's secrets signed the raw bytes. Raises InboundError (`invalid_signature`)."""
        raise InboundError(f"{self.provider} takes no webhooks.", code="invalid_signature")

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return every event of the batch, in order; an item that is not understood is `Unhandled`.

        Raises InboundError (`malformed`).
        """
        return []

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """Return the request as JSON to be kept. `parse(replayed(kept))` gives the same events again.

        address: narrow the payload to this account, if the provider's payloads can name several.
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
        """Return the request of a kept payload (by `keep`, or the `raw` of an Unhandled). It is unsigned."""
        if raw.keys() == {BODY, QUERY}:
            return InboundRequest("POST", "", {}, raw[QUERY], raw[BODY].encode())
        return InboundRequest("POST", "", {}, {}, json.dumps(raw).encode())

    @abstractmethod
    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one text or file. Raises SendError."""

    def mark_read(self, account: Account, answered: InboundReference, *, typing: bool) -> None:
        """Show the person that their message was read.

        typing: show also that a reply is being written, for some seconds or until it is sent.

        Raises SendError, which callers may ignore.
        """
        raise SendError(f"{self.provider} has no read marks.", code="not_supported")

    def templates(self, account: Account, business: str) -> list[CatalogueTemplate]:
        """Return the account's templates, in whichever state they are.

        business: the provider's business account above this one, '' if it is not known

        Raises SendError; `no_business` if the provider cannot be asked without it.
        """
        raise SendError(f"{self.provider} has no templates.", code="not_supported")

    def inspect(self, account: Account, business: str, webhook_url: str) -> list[Finding]:
        """Return what the provider says of the account beyond its credentials: its state, and where it delivers to.

        business: the provider's business account above this one, '' if it is not known
        webhook_url: our address, to which the provider should deliver

        Raises SendError.
        """
        return []

    def media_link(self, account: Account, source: str) -> MediaLink:
        """Return the link of a file that a message brought, asked for anew each time, since links run out.

        source: of a MediaReference of this adapter

        Raises SendError: not retryable where the provider does not have the file (any more).
        """
        return MediaLink(source)

    def check(self, account: Account) -> str:
        """Return the provider's name of the account, asked for with the account's credentials. No message is sent.

        Raises SendError: `account_broken` if the credentials are refused, `not_supported` if the provider cannot be
        asked.
        """
        raise SendError(f"{self.provider} has no route to check credentials.", code="not_supported")
