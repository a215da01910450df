"""Verification of ID tokens (OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import jwt
from allauth.socialaccount.providers.oauth2.client import OAuth2Error

# Signatures by a key of the provider alone: no "none", and no shared secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_SECONDS = 30  # for clocks that differ
LONGEST_SUBJECT = 255


class SignInRefusedError(OAuth2Error):  # type: ignore[misc]
    """A sign-in by an identity provider that is not to be trusted. `code` says why, for the log."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def nonce_of(code_verifier: str) -> str:
    """Return the nonce of a sign-in: a hash of its PKCE code verifier, which only the browser's session holds."""
    return hashlib.sha256(f"nonce {code_verifier}".encode()).hexdigest()


def verified(token: str, keys: Mapping[str, Any], *, issuer: str, audience: str, nonce: str) -> dict[str, Any]:
    """Return the claims of the ID token.

    keys: the provider's keys as a JWK Set

    Raises SignInRefusedError if it was not signed by one of the keys, has expired, was made by another issuer, for
    another audience or for another sign-in.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(token, keys),
            algorithms=ALGORITHMS,
            issuer=issuer,
            audience=audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise SignInRefusedError(f"token_{type(error).__name__}") from None
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise SignInRefusedError("token_wrong_nonce")
    if claims.get("azp", audience) != audience:
        raise SignInRefusedError("token_wrong_party")
    if not 0 < len(str(claims["sub"])) <= LONGEST_SUBJECT:
        raise SignInRefusedError("token_wrong_subject")
    return claims


def _key(token: str, keys: Mapping[str, Any]) -> jwt.PyJWK:
    """Return the key that the token names; the only one if it names none."""
    named = jwt.get_unverified_header(token).get("kid")
    known = jwt.PyJWKSet.from_dict(dict(keys)).keys
    fitting = [key for key in known if key.key_id == named] if named else known
    if len(fitting) != 1:
        raise SignInRefusedError("token_unknown_key")
    return fitting[0]
