"""Authentication of the copilot's users by Django's session."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations.services.copilot.sessions import User

NOT_SIGNED_IN = "Sign in first at /copilot/login."


class SessionLogin(SessionAuthentication):
    """DRF's session authentication. Requests that change something need the CSRF token in the header X-CSRFToken."""

    def authenticate_header(self, request: Request) -> str:
        """Return the WWW-Authenticate header, with which DRF answers 401 and not 403."""
        return 'Session realm="copilot"'


class IsSignedIn(BasePermission):
    """DRF's permission for signed-in users."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True. Raises NotAuthenticated if nobody is signed in."""
        if request.user is None or not request.user.is_authenticated:
            raise NotAuthenticated(NOT_SIGNED_IN)
        return True


def user_of(request: Any) -> User:
    """Return the signed-in user. Call it where IsSignedIn, or Django's login_required, has let the request in."""
    return User(request.user.pk, request.user.get_full_name() or request.user.get_username())
