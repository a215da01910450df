"""Who is calling: `X-Service-API-Key: <key>` or `Authorization: Bearer <key>`; a key belongs to one client."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations.http.envelope import CHALLENGE
from conversations.models import ApiKey
from conversations.services.core.ledger import Actor, Kind
from conversations.services.tenants import api_keys

WRONG_KEY = (
    "This API key is unknown or revoked, or its client is switched off. `manage.py create_api_key` makes a new key."
)
NO_KEY = "An API key is needed, in the header X-Service-API-Key or Authorization: Bearer."


def service_key(request: HttpRequest) -> str:
    """The key that the request carries, or ''."""
    key = request.META.get("HTTP_X_SERVICE_API_KEY", "")
    if key:
        return str(key).strip()
    scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return str(credentials).strip() if scheme.lower() == "bearer" else ""


class ServiceKeyAuthentication(BaseAuthentication):
    """Puts the ApiKey, with its client, into `request.auth`."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        """Raises AuthenticationFailed for a key that is unknown or revoked."""
        key = service_key(request)
        if not key:
            return None
        found = api_keys.find_api_key(key)
        if not found:
            raise AuthenticationFailed(WRONG_KEY)
        return None, found

    def authenticate_header(self, request: Request) -> str:
        """What makes it a 401."""
        return CHALLENGE


class HasServiceKey(BasePermission):
    """Only with a key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """True. Raises NotAuthenticated if the request carried none (a wrong one was refused before)."""
        if not isinstance(request.auth, ApiKey):
            raise NotAuthenticated(NO_KEY)
        return True


def actor(request: Request) -> Actor:
    """The caller, as staff and ledger name it: what the key is called, and its beginning, since names may be alike."""
    key = key_of(request)
    return Actor(Kind.API, f"{key.name} ({key.prefix})" if key.name else key.prefix)


def key_of(request: Request) -> ApiKey:
    """The key that HasServiceKey has seen."""
    assert isinstance(request.auth, ApiKey)  # noqa: S101 - for the type checker; the permission guarantees it
    return request.auth
