"""An OpenID provider: discovery, authorization with PKCE, token endpoint, keys and userinfo (OpenID Connect Core 1.0).

Whoever is `person` is signed in there. `claims` change what its tokens say, `signed_by` who signs them, and
`named` which of the `keys` they name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.server import FakeServer, Received, Reply

CLIENT_ID, SECRET = "convo", "a secret of the provider"
FORBIDDEN = {"error": "invalid_grant"}


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEY, STRANGERS_KEY = new_key(), new_key()


class FakeIdentityProvider(FakeServer):
    """The provider. `redirect_uri` is the one that is registered."""

    def __init__(self, redirect_uri: str) -> None:
        super().__init__()
        self.redirect_uri = redirect_uri
        self.person: dict[str, Any] = {"sub": "1001", "preferred_username": "ann", "name": "Ann Example"}
        self.groups: list[str] | None = ["support"]
        self.claims: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.keys = [public(KEY)]
        self.signed_by: Any = KEY
        self.named: str | None = "first"
        self.algorithm = "RS256"
        self.codes: dict[str, Mapping[str, str]] = {}

    def handle(self, request: Received) -> Reply:
        parts = urlsplit(request.path)
        match request.method, parts.path:
            case "GET", "/.well-known/openid-configuration":
                return Reply(200, self._configuration())
            case "GET", "/authorize":
                return self._authorize(dict(parse_qsl(parts.query)))
            case "POST", "/token":
                return self._token(dict(parse_qsl(request.body.decode())), request.headers)
            case "GET", "/keys":
                return Reply(200, {"keys": self.keys})
            case "GET", "/userinfo":
                return Reply(200, {"sub": self.person["sub"], **self.userinfo})
        return Reply(404)

    def _configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            **self.discovery,
        }

    def _authorize(self, asked: dict[str, str]) -> Reply:
        is_right = (
            asked.get("client_id") == CLIENT_ID
            and asked.get("redirect_uri") == self.redirect_uri
            and asked.get("response_type") == "code"
            and "openid" in asked.get("scope", "").split()
            and asked.get("code_challenge_method") == "S256"
        )
        if not is_right:
            return Reply(400, b"This request is not allowed.")
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer = urlencode({"code": code, "state": asked["state"]})
        return Reply(302, b"", {"Location": f"{asked['redirect_uri']}?{answer}"})

    def _token(self, given: dict[str, str], headers: Mapping[str, str]) -> Reply:
        expected = base64.b64encode(f"{CLIENT_ID}:{SECRET}".encode()).decode()
        if headers.get("authorization") != f"Basic {expected}":
            return Reply(401, {"error": "invalid_client"})
        asked = self.codes.pop(given.get("code", ""), None)  # a code is taken once
        if asked is None or given.get("redirect_uri") != asked["redirect_uri"]:
            return Reply(400, FORBIDDEN)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return Reply(400, FORBIDDEN)
        token = {"access_token": secrets.token_urlsafe(16), "token_type": "Bearer", "expires_in": 300}
        return Reply(200, {**token, "id_token": self._id_token(asked)}, {"Content-Type": "application/json"})

    def _id_token(self, asked: Mapping[str, str]) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked.get("nonce")}
        claims |= self.person | ({} if self.groups is None else {"groups": self.groups}) | self.claims
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(
            kept, self.signed_by, algorithm=self.algorithm, headers={"kid": self.named} if self.named else None
        )


def public(key: rsa.RSAPrivateKey, name: str = "first") -> dict[str, Any]:
    """Return the public half as a JSON Web Key."""
    found: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return found | {"kid": name, "use": "sig", "alg": "RS256"}
