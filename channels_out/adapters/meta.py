"""The base of the adapters for Meta's products: WhatsApp (also through 360dialog) and Messenger.

A webhook passes `addresses`, `verify` and `parse`. `parse` walks over the entries of the batch and lets the product's
adapter read each one. A send is composed by the product's adapter, posted here, and an error answer becomes a SendError
by the product's error table (`GraphErrors`).

Source: Meta, Graph API, "Webhooks: Getting started" and "Handling errors".
"""

from __future__ import annotations

import hmac
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from channels_out import http
from channels_out.contract import Account, Adapter, InboundRequest, OutboundMessage, SendResult, WebhookResponse
from channels_out.errors import ErrorMeaning, ErrorRule, InboundError, SendError, gateway_error, send_error
from channels_out.events import Event, Unhandled
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind
from channels_out.raw_claims import claims
from channels_out.shapes import record

SIGNATURE_HEADER = "x-hub-signature-256"
MAX_KIND = 64  # characters of the provider's word for a kind of event

_PREFIX = "sha256="
_SIGNATURE_LENGTH = len(_PREFIX) + 64
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{1,256}")  # Meta sends digits; markup is not echoed
_INVALID_PARAMETER = "100"


@dataclass(frozen=True, slots=True)
class GraphErrors:
    """The error table of one product. A known subcode wins over its code, and a pair of both over either;
    `subcode_sentences` are of those that only tell more.

    Errors are told apart by `error.code` and its subcode, not by the HTTP status: Meta answers throttling with a 403,
    and some errors with a 200. Meta's own sentences are not passed on: that of 190 quotes the token, others the number.
    """

    product: str
    codes: Mapping[int, ErrorRule]
    subcodes: Mapping[int, ErrorRule] = field(default_factory=dict)
    subcode_sentences: Mapping[int, str] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], ErrorRule] = field(default_factory=dict)

    def error_of(self, answer: HttpAnswer, otherwise: str = "") -> SendError | None:
        """Return the error that the answer reports, or None if it is a success.

        An answer with an error status means that nothing was accepted. The exception is a gateway's own error page:
        the result is then `ambiguous`. `otherwise` is the sentence for codes without one.
        """
        content = answer.json()
        if answer.ok and not (type(content) is dict and content.get("error")):
            return None
        error = record(content, "error")
        number, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
        code = f"http_{answer.status}" if number is None else str(number)
        if number is None and answer.is_from_gateway:
            return gateway_error(self.product, code=code)
        rule = self.rule(-1 if number is None else number, subcode or 0)
        if rule is None:
            rule = ErrorRule(_meaning_of_status(answer.status, is_transient=error.get("is_transient") is True))
        sentence = self.subcode_sentences.get(subcode or 0) or rule.sentence or otherwise
        return send_error(
            rule.meaning,
            sentence or f"{self.product} did not take the message.",
            code=code,
            retry_after=answer.retry_after,
        )

    def rule(self, code: int, subcode: int) -> ErrorRule | None:
        """Return the rule for an error, None if the table has none."""
        return self.pairs.get((code, subcode)) or self.subcodes.get(subcode) or self.codes.get(code)

    def is_outside_window(self, code: Any) -> bool:
        """Return whether this code says that the person last wrote too long ago for free text."""
        rule = self.codes.get(number) if (number := _number(code)) is not None else None
        return rule is not None and rule.meaning is ErrorMeaning.OUTSIDE_WINDOW

    def account_refusal(self, code: Any) -> str:
        """Return the sentence for staff if this code refuses the whole account, else ''."""
        number = _number(code)
        rule = None if number is None else self.codes.get(number)
        if rule is None or rule.meaning is not ErrorMeaning.BROKEN:
            return ""
        return f"{rule.sentence or f'{self.product} refuses the account.'} ({number})"


class MetaAdapter(Adapter):
    """One product of Meta's. `app_secret` belongs to the Meta app, not to the account's number or page.

    A payload is `{"object": …, "entry": […]}`. Its entries may belong to different accounts, and so to different
    tenants. An item that cannot be read becomes `Unhandled`; the others are read all the same.

    webhook_object      the word in the payload's `object`
    further_objects     other words there that mean the same kind of payload
    errors              the product's error table
    record_fields       the fields of the account's own record that `check` asks for, separated by commas
    account_key         the key of an account's id in the payload
    """

    webhook_object: ClassVar[str]
    further_objects: ClassVar[tuple[str, ...]] = ()
    errors: ClassVar[GraphErrors]
    record_fields: ClassVar[str]
    account_key: ClassVar[str]
    limit_unit = "utf-16 units"
    credentials: ClassVar[tuple[str, ...]] = ("access_token", "app_secret", "verify_token")
    signed_with: ClassVar[str] = "app_secret"
    signature_headers: ClassVar[tuple[str, ...]] = (SIGNATURE_HEADER,)
    reply_window = timedelta(hours=24)
    marks_read = True

    # --- webhooks: what a product's adapter provides

    @abstractmethod
    def entry_accounts(self, entry: Any) -> list[str]:
        """Return the addresses of the accounts that the entry names."""

    @abstractmethod
    def entry_events(self, entry: Any) -> list[Event]:
        """Return everything that the entry reports, in order."""

    @abstractmethod
    def narrowed_entry(self, entry: Any, address: str) -> dict[str, Any] | None:
        """Return the part of the entry that concerns one account, or None if no part does."""

    # --- webhooks

    def handshake(self, request: InboundRequest, accounts: Iterable[Account]) -> WebhookResponse | None:
        """Return the challenge if the request carries the verify token of one of the accounts, else a 403.

        Returns None if the request is not Meta's subscription check.
        """
        if "hub.mode" not in request.query:
            return None
        given = request.query.get("hub.verify_token", "").encode("utf-8", "surrogatepass")
        expected = [account.credentials.get("verify_token", "").encode() for account in accounts]
        known = [token for token in expected if token and hmac.compare_digest(token, given)]
        challenge = request.query.get("hub.challenge", "")
        if request.query["hub.mode"] == "subscribe" and known and _CHALLENGE.fullmatch(challenge):
            return WebhookResponse(body=challenge)
        return WebhookResponse(status=403, body="forbidden")

    def claimed(self, request: InboundRequest) -> list[str]:
        """Return what stands at the accounts' key anywhere in the body."""
        return claims(request.body, self.account_key)

    def addresses(self, request: InboundRequest) -> list[str]:
        """Return the accounts of all entries."""
        return list(dict.fromkeys(each for entry in self._entries(request) for each in self.entry_accounts(entry)))

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if one of the account's app secrets signed the raw bytes.

        Two signature headers arrive joined by a comma, and are refused for their length.
        """
        given = request.headers.get(SIGNATURE_HEADER, "")
        if len(given) == _SIGNATURE_LENGTH and given.isascii():
            for secret in account.secrets("app_secret"):
                if hmac.compare_digest(signature(secret, request.body), given):
                    return
        raise InboundError("The signature does not match.", code="invalid_signature")

    def parse(self, request: InboundRequest) -> list[Event]:
        """Return every event of every entry."""
        events = [event for entry in self._entries(request) for event in self.entry_events(entry)]
        word = self._object_of(request)
        return events if word == self.webhook_object else [_with_object(event, word) for event in events]

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """Return the payload, or its entries narrowed to one account."""
        if not address:
            return super().keep(request)
        narrowed = (self.narrowed_entry(entry, address) for entry in self._entries(request))
        return {"object": self._object_of(request), "entry": [entry for entry in narrowed if entry is not None]}

    def _entries(self, request: InboundRequest) -> list[Any]:
        payload = request.json()
        entries = payload.get("entry") if type(payload) is dict else None
        word = payload.get("object", self.webhook_object) if type(entries) is list else ""
        is_further = word in self.further_objects and bool(entries)  # an empty one says nothing to this adapter
        if type(entries) is not list or not (word == self.webhook_object or is_further):
            raise InboundError(f"The body is not a {self.errors.product} webhook.", code="malformed")
        return entries

    def _object_of(self, request: InboundRequest) -> str:
        """Return the word in the payload's `object`. Call it only for a payload with entries."""
        return str(request.json().get("object", self.webhook_object))

    # --- sending: what a product's adapter provides

    @abstractmethod
    def compose(self, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one message."""

    @abstractmethod
    def accepted_id(self, content: Any) -> str:
        """Return the provider's id of the message that it accepted, '' if the answer names none."""

    @abstractmethod
    def account_name(self, content: Any) -> str:
        """Return the name in the account's own record, '' if there is none."""

    def recipient_addresses(self, content: Any) -> list[tuple[AddressKind, str]]:
        """Return the addresses of the recipient that the answer names, with their kinds."""
        return []

    # --- sending

    def send(self, account: Account, message: OutboundMessage) -> SendResult:
        """Send one message. Meta takes no idempotency key, but reports our message id back in a receipt.

        Raises SendError; a success that names no message is ambiguous.
        """
        content = self._post(account, self.content_of(account, message)).json()
        provider_message_id = self.accepted_id(content)
        if not provider_message_id:
            raise SendError(f"{self.errors.product}'s answer names no message.", code="bad_answer", ambiguous=True)
        aliases = [each for each in self.recipient_addresses(content) if each[1] != message.to]
        return SendResult(provider_message_id, aliases=tuple(aliases))

    def content_of(self, account: Account, message: OutboundMessage) -> dict[str, Any]:
        """Return the JSON of one message, after what must be uploaded for it. Raises SendError (nothing was sent)."""
        return self.compose(message)

    def check(self, account: Account) -> str:
        """Return the name in the record of the account's number or page."""
        answer = http.get(
            f"{self._account_url(account)}?fields={self.record_fields}",
            headers=self._authorization(account),
            timeout=account.timeout,
        )
        error = self.errors.error_of(answer, otherwise=f"{self.errors.product} did not answer the question.")
        if error and error.code == _INVALID_PARAMETER:
            sentence = f"{self.errors.product} does not know this {self.address_name}, or the access token has no"
            raise SendError(f"{sentence} access to it. ({error.code})", code=error.code, account_broken=True)
        if error:
            raise error
        name = self.account_name(answer.json())
        if not name:
            raise SendError(f"{self.errors.product}'s answer does not name the account.", code="bad_answer")
        return name

    def _read(self, account: Account, url: str) -> Any:
        """Return the JSON of an address of the provider's. Raises SendError."""
        answer = http.get(url, headers=self._authorization(account), timeout=account.timeout)
        if error := self.errors.error_of(answer, otherwise=f"{self.errors.product} did not answer the question."):
            raise error
        return answer.json()

    def _post(self, account: Account, content: dict[str, Any]) -> HttpAnswer:
        """Post to the account's message route and return the answer. Raises SendError unless it is a success."""
        headers = self._authorization(account)
        answer = http.post_json(self._messages_url(account), content, headers=headers, timeout=account.timeout)
        if error := self.errors.error_of(answer):
            raise error
        return answer

    def _account_url(self, account: Account) -> str:
        return f"{account.base_url}/{quote(account.address, safe='')}"

    def _messages_url(self, account: Account) -> str:
        return f"{self._account_url(account)}/messages"

    def _authorization(self, account: Account) -> dict[str, str]:
        """Return the header with the account's token. In the URL, where Meta takes it too, it would end up in logs."""
        token = account.credentials.get("access_token", "")
        if not token:
            raise SendError("The account has no access token.", code="no_credentials", account_broken=True)
        return {"Authorization": f"Bearer {token}"}


def signature(secret: str, body: bytes) -> str:
    """Return the value of the signature header for a body: HMAC-SHA256 over the raw bytes, in lower-case hex."""
    return _PREFIX + hmac.digest(secret.encode(), body, "sha256").hex()


def unhandled(
    account: str, kind: str, reason: str, *, webhook_object: str, entry: Any, message_id: str = ""
) -> Unhandled:
    """Return the event for an item that is no turn, with a payload of this one entry."""
    raw = {"object": webhook_object, "entry": [entry]}
    return Unhandled(account, kind[:MAX_KIND].strip() or "unknown", reason, raw, message_id)


def _with_object(event: Event, word: str) -> Event:
    """Return the event with the word in its kept payload, so that it is parsed alike when it is replayed."""
    return replace(event, raw={**event.raw, "object": word}) if isinstance(event, Unhandled) else event


def _meaning_of_status(status: int, *, is_transient: bool) -> ErrorMeaning:
    """Return the meaning where the code is unknown or missing (360dialog's own errors, a proxy's page)."""
    if status == 429:
        return ErrorMeaning.THROTTLED
    if status >= 500 or status == 408 or is_transient:
        return ErrorMeaning.TRANSIENT
    return ErrorMeaning.BROKEN if status == 401 else ErrorMeaning.FINAL


def _number(code: Any) -> int | None:
    if type(code) is str and code.isascii() and code.isdigit():
        return int(code[:10])
    return code if type(code) is int else None
