"""Authentication by API key: `X-Service-API-Key: <key>` or `Authorization: Bearer <key>`; a key has one client."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations.http.envelope import CHALLENGE
from conversations.models import ApiKey, Scope
from conversations.services.core.ledger import Actor, Kind
from conversations.services.tenants import api_keys

WRONG_KEY = (
    "This API key is unknown, revoked or expired, or its client is switched off. `manage.py create_api_key` makes one."
)
NO_KEY = "Send an API key in the header X-Service-API-Key or Authorization: Bearer."


def service_key(request: HttpRequest) -> str:
    """Return the API key that the request carries, or ''."""
    key = request.META.get("HTTP_X_SERVICE_API_KEY", "")
    if key:
        return str(key).strip()
    scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return str(credentials).strip() if scheme.lower() == "bearer" else ""


class ServiceKeyAuthentication(BaseAuthentication):
    """DRF's authentication that puts the ApiKey, with its client, into `request.auth`."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        """Return (None, the request's ApiKey), or None without a key. Raises AuthenticationFailed for a wrong key."""
        key = service_key(request)
        if not key:
            return None
        found = api_keys.find_api_key(key)
        if not found:
            raise AuthenticationFailed(WRONG_KEY)
        return None, found

    def authenticate_header(self, request: Request) -> str:
        """Return the WWW-Authenticate header, with which DRF answers 401 and not 403."""
        return CHALLENGE


class HasServiceKey(BasePermission):
    """DRF's permission for requests with an API key that has the scope which the view's `scopes` names for its action.

    An action without a line in `scopes` needs `admin`. A view's `pk` is a conversation; a private one needs
    `private:read` as well, unless the view's `for_private` names the action.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True. Raises NotAuthenticated if the request carried no key (a wrong one was refused before), or
        ForbiddenError, which names the scope that the key lacks."""
        if not isinstance(request.auth, ApiKey):
            raise NotAuthenticated(NO_KEY)
        if view.action not in view.action_map.values():  # the route does not take the method, which is a 405
            return True
        api_keys.require_scope(request.auth, view.scopes.get(view.action, Scope.ADMIN))
        if "pk" in view.kwargs and view.action not in getattr(view, "for_private", ()):
            api_keys.require_sight(request.auth, view.kwargs["pk"])
        return True


def actor(request: Request) -> Actor:
    """Return the caller for the ledger: the key's name and prefix, since several keys may have one name."""
    key = key_of(request)
    return Actor(Kind.API, f"{key.name} ({key.prefix})" if key.name else key.prefix)


def key_of(request: Request) -> ApiKey:
    """Return the request's API key. Call it where HasServiceKey has let the request in."""
    assert isinstance(request.auth, ApiKey)  # noqa: S101 - for the type checker; the permission guarantees it
    return request.auth
