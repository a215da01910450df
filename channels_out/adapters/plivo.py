"""What Plivo's SMS and voice share: form posts, signatures, numbers, and its API's answers.

Sources: Plivo, "Signature validation", "Voice API: XML request", "Messaging API"; for the signature of a POST without a
query, where the documents differ from each other, Plivo's published package.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from channels_out import http
from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError, SendError, Throttled
from channels_out.events import Sender
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind
from channels_out.phones import e164
from channels_out.shapes import clean, clean_text, identifier, load_json, text

PROVIDER = "plivo"
CREDENTIALS = ("auth_id", "auth_token")

MAX_FIELDS = 1000
FORM = "application/x-www-form-urlencoded"

Fields = Mapping[str, Sequence[str]]

_PUNCTUATION = re.compile(r"[\s+().\-]")


@dataclass(frozen=True, slots=True)
class _Version:
    """A way to sign: the headers with the signatures (by a subaccount's token, by the main account's) and the nonce."""

    signatures: tuple[str, str]
    nonce: str


_V3 = _Version(("x-plivo-signature-v3", "x-plivo-signature-ma-v3"), "x-plivo-signature-v3-nonce")
_V2 = _Version(("x-plivo-signature-v2", "x-plivo-signature-ma-v2"), "x-plivo-signature-v2-nonce")
SIGNATURES = (*_V3.signatures, *_V2.signatures)


# --- what Plivo posts -------------------------------------------------------------------------------------------------
def fields(request: InboundRequest) -> dict[str, Any]:
    """What the request says, fit to be stored: its form, or on a GET its query; of a field given twice, the first.

    What was kept for a replay comes as a JSON object. Raises InboundError (`malformed`).
    """
    if request.method == "GET":
        return {clean_text(name): clean_text(value) for name, value in request.query.items()}
    if request.body[:1] == b"{" and not request.headers.get("content-type", "").startswith(FORM):
        kept = load_json(request.body)
        if type(kept) is not dict:
            raise InboundError("The body is no form.", code="malformed")
        return kept
    return {clean_text(name): clean_text(values[0]) for name, values in form(request.body).items()}


def posted(request: InboundRequest) -> InboundRequest:
    """The request as if it had been posted, to be kept."""
    if request.method != "GET":
        return request
    body = urlencode(request.query, errors="replace").encode()
    return InboundRequest("POST", request.url, request.headers, request.query, body)


def form(body: bytes) -> dict[str, list[str]]:
    """The fields of a form's body. Raises InboundError (`malformed`) where it has too many."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InboundError("The form has too many fields.", code="malformed") from None


def number(written: str) -> str:
    """A number as accounts and replies carry it: digits alone; what is none (a name, a SIP address) as it is.

    Plivo mostly writes no "+", and one that is not escaped in a form reaches us as a space.
    """
    digits = _PUNCTUATION.sub("", written)
    return digits if digits.isascii() and digits.isdigit() else written.strip()


def number_at(said: Mapping[str, Any], key: str) -> str:
    """The number in a field, '' if there is none."""
    return number(identifier(said, key))


def sender(address: str) -> Sender:
    """Who has this number; a short code has no phone."""
    if not address.isdigit():
        return Sender(address, AddressKind.USER)
    return Sender(address, AddressKind.PHONE, phone=e164("+" + address))


# --- signatures -------------------------------------------------------------------------------------------------------
def verify(request: InboundRequest, account: Account) -> None:
    """Return if one of the account's tokens signed the request. Raises InboundError (`invalid_signature`).

    V3 covers the address, the query and the form; V2 the address alone, so it only counts where no V3 came. Each header
    may hold several signatures, and `auth_token` several tokens while one is being replaced.
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


def _signed_by_v3(request: InboundRequest) -> str:
    try:
        return signed_by_v3(request.method, request.url, {} if request.method == "GET" else form(request.body))
    except InboundError:
        raise InboundError("The signature does not match.", code="invalid_signature") from None


def signature(token: str, signed: str, nonce: str, is_v3: bool) -> str:
    """HMAC-SHA256 in base64 over what is signed and the nonce."""
    message = f"{signed}.{nonce}" if is_v3 else signed + nonce
    digest = hmac.digest(token.encode("utf-8", "surrogatepass"), message.encode("utf-8", "surrogatepass"), "sha256")
    return b64encode(digest).decode()


def signed_by_v2(url: str) -> str:
    """What V2 signs: the address without its query."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def signed_by_v3(method: str, url: str, posted: Fields) -> str:
    """What V3 signs: the address, its query sorted by name and decoded, and the form's names and values in a row.

    The question mark is there for a form without a query too; the dot only where both are.
    """
    base = signed_by_v2(url)
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    asked = "&".join(f"{name}={value}" for name, value in _sorted(query))
    if method == "GET" or not posted:
        return f"{base}?{asked}" if asked else base
    said = "".join(name + value for name, value in _sorted(posted))
    return f"{base}?{asked}.{said}" if asked else f"{base}?{said}"


def _sorted(given: Fields) -> list[tuple[str, str]]:
    return [(name, value) for name in sorted(given) for value in sorted(given[name])]


# --- its API ----------------------------------------------------------------------------------------------------------
_GATEWAY = {502, 504}  # the request was passed on, and what became of it is not known (RFC 9110, 15.6.3 and 15.6.5)

_TRANSIENT = "transient"
_THROTTLED = "throttled"
_BROKEN = "broken"
_FINAL = "final"

# Plivo tells errors apart by the status; its `error` is a sentence, which may quote a number.
_MEANING: dict[int, str] = {
    **dict.fromkeys((400, 403, 404, 405, 409, 413, 415, 422), _FINAL),
    **dict.fromkeys((401, 402), _BROKEN),
    **dict.fromkeys((408, 425), _TRANSIENT),
    429: _THROTTLED,
}
_SENTENCES = {
    400: "Plivo found something invalid in the message: its sender, its recipient or its text.",
    401: "Plivo refuses the auth id or the auth token.",
    402: "Plivo has no credit left for the account.",
    403: "Plivo does not let this account send to that country.",
    404: "Plivo knows no such thing: is the sender a number of this account?",
    429: "Plivo throttles the account.",
}


def post(account: Account, resource: str, payload: dict[str, Any]) -> HttpAnswer:
    """POST to a resource of the account ("Message"). Raises SendError."""
    url, headers = _request(account, f"{resource}/")
    return http.post_json(url, payload, headers=headers, timeout=account.timeout)


def check(account: Account) -> str:
    """Read the account's own record: what it is called. Raises SendError."""
    url, headers = _request(account, "")
    answer = http.get(url, headers=headers, timeout=account.timeout)
    content = answer.json()
    if not answer.ok:
        raise error_of(answer, otherwise="Plivo did not answer the question.")
    name = identifier(content, "name") or identifier(content, "auth_id")
    if not name:
        raise SendError("Plivo's answer names no account.", code="bad_answer")
    return name


def require_credentials(account: Account) -> tuple[str, str]:
    """The auth id and the token to send with: the first. Raises SendError (`no_credentials`)."""
    auth_id, tokens = account.credentials.get("auth_id", "").strip(), account.secrets("auth_token")
    if not auth_id or not tokens:
        raise SendError("The account has no auth id or no auth token.", code="no_credentials", account_broken=True)
    return auth_id, tokens[0]


def _request(account: Account, path: str) -> tuple[str, dict[str, str]]:
    auth_id, token = require_credentials(account)
    if not re.fullmatch(r"[A-Za-z0-9]+", auth_id):
        raise SendError("The auth id is none.", code="invalid_request", account_broken=True)
    pair = b64encode(f"{auth_id}:{token}".encode("utf-8", "surrogatepass")).decode()
    return f"{account.base_url}/Account/{auth_id}/{path}", {"Authorization": f"Basic {pair}"}


def error_of(answer: HttpAnswer, otherwise: str = "Plivo did not take the message.") -> SendError:
    """What an answer with an error means."""
    status = answer.status
    code = f"http_{status}"
    if status in _GATEWAY and not text(answer.json(), "api_id"):
        return SendError(f"Something before Plivo lost its answer. ({code})", code=code, ambiguous=True)
    meaning = _MEANING.get(status) or (_TRANSIENT if status >= 500 else _FINAL)
    throttled: Throttled = "account" if meaning == _THROTTLED else ""
    return SendError(
        f"{_SENTENCES.get(status, otherwise)} ({code})",
        code=code,
        retryable=meaning in (_TRANSIENT, _THROTTLED),
        retry_after=answer.retry_after if meaning != _FINAL else None,
        throttled=throttled,
        account_broken=meaning == _BROKEN,
    )


def raw(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they are kept for a replay."""
    return {str(name): clean(value) for name, value in said.items()}
