"""The base of the adapters for Plivo's SMS and phone calls: form posts, signatures, numbers, and its API's answers.

Sources: Plivo, "Signature validation", "Voice API: XML request", "Messaging API"; for the signature of a POST without a
query, where the documents differ from each other, Plivo's published package.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from channels_out import http
from channels_out.contract import Account, Adapter, InboundRequest
from channels_out.errors import ErrorMeaning, ErrorRule, InboundError, SendError, gateway_error, send_error
from channels_out.events import Sender
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind
from channels_out.phones import e164
from channels_out.shapes import clean, clean_text, identifier, text

MAX_FIELDS = 1000
MAX_FORM_BYTES = 200_000  # read before the signature, which covers the fields; the longest SMS has 15,000
FORM = "application/x-www-form-urlencoded"

Fields = Mapping[str, Sequence[str]]

_PUNCTUATION = re.compile(r"[\s+().\-]")


@dataclass(frozen=True, slots=True)
class _SignatureVersion:
    """The headers of one version: the signatures (by a subaccount's token, by the main account's) and the nonce."""

    signatures: tuple[str, str]
    nonce: str


_V3 = _SignatureVersion(("x-plivo-signature-v3", "x-plivo-signature-ma-v3"), "x-plivo-signature-v3-nonce")
_V2 = _SignatureVersion(("x-plivo-signature-v2", "x-plivo-signature-ma-v2"), "x-plivo-signature-v2-nonce")


class PlivoAdapter(Adapter):
    """A product of Plivo's for one of an account's numbers.

    An account's address is its number, in digits with the country code. `auth_token` signs what Plivo posts and
    authenticates what we send: it may hold several, separated by commas or whitespace; we send with the first.
    """

    provider = "plivo"
    address_name = "phone number"
    credentials = ("auth_id", "auth_token")
    signed_with = "auth_token"
    signature_headers: ClassVar[tuple[str, ...]] = (*_V3.signatures, *_V2.signatures)

    def normal_address(self, written: str) -> str:
        """Return the digits alone."""
        return number(written)

    def claimed(self, request: InboundRequest) -> list[str]:
        """Return the number that the form names: a form is flat and has few fields, and V3 signs them one by one."""
        try:
            return self.addresses(request)
        except InboundError:
            return []

    def verify(self, request: InboundRequest, account: Account) -> None:
        """Return if one of the account's tokens signed the request.

        V3 covers the address, the query and the form; V2 the address alone, so it only counts without a V3. Each header
        may hold several signatures.
        """
        version = _V3 if any(name in request.headers for name in (*_V3.signatures, _V3.nonce)) else _V2
        given = [
            each.strip().encode("utf-8", "surrogatepass")
            for name in version.signatures
            for each in request.headers.get(name, "").split(",")
        ]
        nonce = request.headers.get(version.nonce, "")
        if nonce:
            signed = _signed_by_v3(request) if version is _V3 else signed_by_v2(request.url)
            for token in account.secrets("auth_token"):
                expected = signature(token, signed, nonce, version is _V3).encode()
                if any(hmac.compare_digest(expected, each) for each in given):
                    return
        raise InboundError("The signature does not match.", code="invalid_signature")

    def keep(self, request: InboundRequest, address: str = "") -> dict[str, Any]:
        """Return the form, also of a GET."""
        return super().keep(_as_post(request), address)

    def check(self, account: Account) -> str:
        """Return the name in the account's own record."""
        url, headers = _request(account, "")
        answer = http.get(url, headers=headers, timeout=account.timeout)
        content = answer.json()
        if not answer.ok:
            raise error_of(answer, otherwise="Plivo did not answer the question.")
        name = identifier(content, "name") or identifier(content, "auth_id")
        if not name:
            raise SendError("Plivo's answer does not name the account.", code="bad_answer")
        return name


# --- posted forms -----------------------------------------------------------------------------------------------------
def fields(request: InboundRequest) -> dict[str, Any]:
    """Return the request's form, or on a GET its query, fit to be stored; of a field given twice, the first.

    A payload that is replayed comes as `Adapter.keep` has kept it: as a JSON object, or as it was. Raises InboundError
    (`malformed`).
    """
    if request.method == "GET":
        return {clean_text(name): clean_text(value) for name, value in request.query.items()}
    if not request.headers:  # nothing that arrives is without headers
        with suppress(InboundError):
            kept = request.json()
            if type(kept) is dict:
                return kept
    return {clean_text(name): clean_text(values[0]) for name, values in form(request.body).items()}


def _as_post(request: InboundRequest) -> InboundRequest:
    """Return the request as a POST, to be kept."""
    if request.method != "GET":
        return request
    body = urlencode(request.query, errors="replace").encode()
    return InboundRequest("POST", request.url, request.headers, request.query, body)


def form(body: bytes) -> dict[str, list[str]]:
    """Return the fields of a form's body. Raises InboundError (`malformed`) if it is too long or has too many."""
    if len(body) > MAX_FORM_BYTES:
        raise InboundError("The form is too long.", code="malformed")
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InboundError("The form has too many fields.", code="malformed") from None


def number(written: str) -> str:
    """Return a number as its digits alone, and anything else (a name, a SIP address) unchanged.

    Plivo mostly writes no "+", and an unescaped one in a form arrives as a space.
    """
    digits = _PUNCTUATION.sub("", written)
    return digits if digits.isascii() and digits.isdigit() else written.strip()


def number_at(posted: Mapping[str, Any], key: str) -> str:
    """Return the number in a field, '' if there is none."""
    return number(identifier(posted, key))


def sender(address: str) -> Sender:
    """Return the sender with this number. A short code has no phone."""
    if not address.isdigit():
        return Sender(address, AddressKind.USER)
    return Sender(address, AddressKind.PHONE, phone=e164("+" + address))


# --- signatures -------------------------------------------------------------------------------------------------------
def _signed_by_v3(request: InboundRequest) -> str:
    try:
        return signed_by_v3(request.method, request.url, {} if request.method == "GET" else form(request.body))
    except InboundError:
        raise InboundError("The signature does not match.", code="invalid_signature") from None


def signature(token: str, signed: str, nonce: str, is_v3: bool) -> str:
    """Return the HMAC-SHA256 of the signed text and the nonce, in base64."""
    message = f"{signed}.{nonce}" if is_v3 else signed + nonce
    digest = hmac.digest(token.encode("utf-8", "surrogatepass"), message.encode("utf-8", "surrogatepass"), "sha256")
    return b64encode(digest).decode()


def signed_by_v2(url: str) -> str:
    """Return the text that V2 signs: the address without its query."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def signed_by_v3(method: str, url: str, posted: Fields) -> str:
    """Return the text that V3 signs: the address, its decoded query sorted by name, and the form's names and values.

    A form without a query has the question mark too; the dot stands only between the two.
    """
    base = signed_by_v2(url)
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    asked = "&".join(f"{name}={value}" for name, value in _sorted(query))
    if method == "GET" or not posted:
        return f"{base}?{asked}" if asked else base
    fields_in_a_row = "".join(name + value for name, value in _sorted(posted))
    return f"{base}?{asked}.{fields_in_a_row}" if asked else f"{base}?{fields_in_a_row}"


def _sorted(given: Fields) -> list[tuple[str, str]]:
    return [(name, value) for name in sorted(given) for value in sorted(given[name])]


# --- its API ----------------------------------------------------------------------------------------------------------
# Plivo tells errors apart by the status; its `error` is a sentence, which may quote a number.
_ERRORS: dict[int, ErrorRule] = {
    400: ErrorRule(
        ErrorMeaning.FINAL, "Plivo found something invalid in the message: its sender, its recipient or its text."
    ),
    401: ErrorRule(ErrorMeaning.BROKEN, "Plivo refuses the auth id or the auth token."),
    402: ErrorRule(ErrorMeaning.BROKEN, "Plivo has no credit left for the account."),
    403: ErrorRule(ErrorMeaning.FINAL, "Plivo does not let this account send to that country."),
    404: ErrorRule(
        ErrorMeaning.FINAL, "Plivo does not know the resource: check that the sender is a number of this account."
    ),
    408: ErrorRule(ErrorMeaning.TRANSIENT),
    425: ErrorRule(ErrorMeaning.TRANSIENT),
    429: ErrorRule(ErrorMeaning.THROTTLED, "Plivo throttles the account."),
}
_SERVER_ERROR, _OTHER_ERROR = ErrorRule(ErrorMeaning.TRANSIENT), ErrorRule(ErrorMeaning.FINAL)


def post(account: Account, resource: str, payload: dict[str, Any]) -> HttpAnswer:
    """POST to a resource of the account ("Message") and return the answer, whatever its status. Raises SendError."""
    url, headers = _request(account, f"{resource}/")
    return http.post_json(url, payload, headers=headers, timeout=account.timeout)


def require_credentials(account: Account) -> tuple[str, str]:
    """Return the auth id and the first token. Raises SendError (`no_credentials`)."""
    auth_id, tokens = account.credentials.get("auth_id", "").strip(), account.secrets("auth_token")
    if not auth_id or not tokens:
        raise SendError("The account has no auth id or no auth token.", code="no_credentials", account_broken=True)
    return auth_id, tokens[0]


def authorization(account: Account) -> dict[str, str]:
    """Return the header with the account's credentials. Raises SendError (`no_credentials`)."""
    auth_id, token = require_credentials(account)
    pair = b64encode(f"{auth_id}:{token}".encode("utf-8", "surrogatepass")).decode()
    return {"Authorization": f"Basic {pair}"}


def _request(account: Account, path: str) -> tuple[str, dict[str, str]]:
    auth_id, _ = require_credentials(account)
    if not re.fullmatch(r"[A-Za-z0-9]+", auth_id):
        raise SendError("The auth id is invalid.", code="invalid_request", account_broken=True)
    return f"{account.base_url}/Account/{auth_id}/{path}", authorization(account)


def error_of(answer: HttpAnswer, otherwise: str = "Plivo did not take the message.") -> SendError:
    """Return the SendError for an answer with an error."""
    code = f"http_{answer.status}"
    if answer.is_from_gateway and not text(answer.json(), "api_id"):
        return gateway_error("Plivo", code=code)
    rule = _ERRORS.get(answer.status) or (_SERVER_ERROR if answer.status >= 500 else _OTHER_ERROR)
    return send_error(rule.meaning, rule.sentence or otherwise, code=code, retry_after=answer.retry_after)


def raw(posted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields as they are kept for a replay."""
    return {str(name): clean(value) for name, value in posted.items()}
