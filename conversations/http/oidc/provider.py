"""The provider that allauth uses for every identity provider of the settings."""

from __future__ import annotations

import hashlib
from typing import Any

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.app_settings import UID_MAX_LENGTH
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.urls import reverse
from requests import RequestException

from conversations.http.oidc.tokens import SignInRefusedError, nonce_of, verified


class VerifyingAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """The exchange with an identity provider. Every ID token is verified, also one that came over TLS."""

    _nonce = ""

    @property
    def openid_config(self) -> dict[str, Any]:
        """Return what the provider's discovery document says. Raises SignInRefusedError if it is not to be had, or
        names another issuer than the settings."""
        _hold_no_connection()
        try:
            found: dict[str, Any] = super().openid_config
            issuer, endpoints = found["issuer"], (found["authorization_endpoint"], found["token_endpoint"])
        except (RequestException, ValueError, KeyError, TypeError, AttributeError):  # down, or answers nonsense
            raise SignInRefusedError("provider_unreachable") from None
        if str(issuer).rstrip("/") != self.get_provider().app.settings["issuer"] or not all(endpoints):
            raise SignInRefusedError("provider_wrong_issuer")
        return found

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        """Return the address that is registered at the provider."""
        way = reverse("openid_connect_callback", kwargs={"provider_id": self.provider_id})
        return f"{settings.PUBLIC_BASE_URL}{way}"

    def get_access_token_data(
        self, request: HttpRequest, app: Any, client: Any, pkce_code_verifier: str | None = None
    ) -> Any:
        """Return the provider's tokens for the code, and remember the nonce that the ID token must have."""
        self._nonce = nonce_of(pkce_code_verifier or "")
        _hold_no_connection()
        return super().get_access_token_data(request, app, client, pkce_code_verifier=pkce_code_verifier)

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> Any:
        """Return the sign-in that the verified ID token tells of. Raises SignInRefusedError."""
        config, claim = self.openid_config, app.settings["groups_claim"]
        try:
            claims = verified(
                str(kwargs["response"].get("id_token", "")),
                self._json(config["jwks_uri"]),
                issuer=config["issuer"],
                audience=app.client_id,
                nonce=self._nonce,
            )
            if claim not in claims and config.get("userinfo_endpoint"):
                claims = {**claims, claim: self._groups_of_userinfo(config, token.token, claims["sub"], claim)}
        except (RequestException, ValueError, KeyError):
            raise SignInRefusedError("provider_unreachable") from None
        data = {
            "id_token": {
                "iss": claims["iss"],
                "sub": str(claims["sub"]),
                "preferred_username": str(claims.get("preferred_username") or ""),
                "name": str(claims.get("name") or ""),
                "groups": _groups(claims.get(claim)),
            }
        }
        return self.get_provider().sociallogin_from_response(request, data)

    def _groups_of_userinfo(self, config: dict[str, Any], access_token: str, subject: str, claim: str) -> Any:
        """Return the groups where the provider names them in its answer about the user and not in the token."""
        found = self._json(config["userinfo_endpoint"], headers={"Authorization": f"Bearer {access_token}"})
        if found.get("sub") != subject:
            raise SignInRefusedError("userinfo_wrong_subject")
        return found.get(claim)

    @staticmethod
    def _json(url: str, **options: Any) -> dict[str, Any]:
        with get_adapter().get_requests_session() as session:
            answer = session.get(url, **options)
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise ValueError(type(found))  # noqa: TRY004 - as an answer that is no JSON at all
        return found


def _hold_no_connection() -> None:
    """Give the database connection back before the provider is asked, which may take its time."""
    if not connection.in_atomic_block:
        connection.close()


def _groups(claimed: Any) -> list[str]:
    """Return the groups of a claim, which is a list or a single name."""
    if isinstance(claimed, str):
        return [claimed]
    return [str(each) for each in claimed] if isinstance(claimed, list) else []


class IdentityProvider(OpenIDConnectProvider):  # type: ignore[misc]
    """An identity provider. Its accounts are named by issuer and `sub`; addresses of e-mail are not read at all."""

    oauth2_adapter_class = VerifyingAdapter

    def get_pkce_params(self) -> dict[str, str]:
        """Return the parameters of PKCE and the nonce. All are new for each sign-in."""
        params: dict[str, str] = super().get_pkce_params()
        return {**params, "nonce": nonce_of(params["code_verifier"])}

    def get_auth_params_from_request(self, request: HttpRequest, action: str) -> dict[str, str]:
        """Return no parameters of the request: a link must not change how somebody signs in."""
        return dict(self.get_auth_params())

    def get_scope_from_request(self, request: HttpRequest) -> list[str]:
        """Return the scopes of the settings."""
        return list(self.get_scope())

    def extract_uid(self, data: dict[str, Any]) -> str:
        """Return the account's name: issuer and subject, or a hash of both where that is too long for the column."""
        name = f"{data['id_token']['iss']} {data['id_token']['sub']}"
        return name if len(name) <= UID_MAX_LENGTH else f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"

    def extract_common_fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the user name and the name of a new user."""
        return {"username": data["id_token"]["preferred_username"], "name": data["id_token"]["name"]}

    def extract_email_addresses(self, data: dict[str, Any]) -> list[Any]:
        """Return none, so that no account is ever found by one."""
        return []


provider_classes = [IdentityProvider]
