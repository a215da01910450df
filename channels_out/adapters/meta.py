"""What Meta's products share: the handshake and the signature of webhooks, and the token of sends."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from channels_out.contract import Account, Answer, InboundRequest
from channels_out.errors import InboundError, SendError

SIGNATURE_HEADER = "x-hub-signature-256"

_PREFIX = "sha256="
_SIGNATURE_LENGTH = len(_PREFIX) + 64
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{1,256}")  # Meta sends digits; markup is not echoed


def handshake(request: InboundRequest, accounts: Iterable[Account]) -> Answer | None:
    """The challenge as plain text if the request carries the verify token of one of the accounts, else a 403.

    None if it is no handshake at all. Source: Meta, Graph API, Webhooks, "Getting started".
    """
    if "hub.mode" not in request.query:
        return None
    given = request.query.get("hub.verify_token", "").encode("utf-8", "surrogatepass")
    expected = [account.credentials.get("verify_token", "").encode() for account in accounts]
    known = [token for token in expected if token and hmac.compare_digest(token, given)]
    challenge = request.query.get("hub.challenge", "")
    if request.query["hub.mode"] == "subscribe" and known and _CHALLENGE.fullmatch(challenge):
        return Answer(body=challenge)
    return Answer(status=403, body="forbidden")


def signature(secret: str, body: bytes) -> str:
    """The value of the signature header for a body: HMAC-SHA256 over the raw bytes, in lower-case hex."""
    return _PREFIX + hmac.digest(secret.encode(), body, "sha256").hex()


def verify(request: InboundRequest, account: Account) -> None:
    """Return if one of the account's app secrets signed the raw bytes. Raises InboundError (`invalid_signature`).

    `app_secret` may hold several while one is being replaced. Two signature headers reach us joined by a comma and
    are refused for their length.
    """
    given = request.headers.get(SIGNATURE_HEADER, "")
    if len(given) == _SIGNATURE_LENGTH and given.isascii():
        for secret in account.secrets("app_secret"):
            if hmac.compare_digest(signature(secret, request.body), given):
                return
    raise InboundError("The signature does not match.", code="invalid_signature")


def authorization(account: Account) -> dict[str, str]:
    """The header with the account's token: in the URL, where Meta takes it too, it would end up in logs.

    Raises SendError (`no_credentials`).
    """
    token = account.credentials.get("access_token", "")
    if not token:
        raise SendError("The account has no access token.", code="no_credentials", account_broken=True)
    return {"Authorization": f"Bearer {token}"}
