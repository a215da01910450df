"""Who is signed in: Django's session, for the copilot's users."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conversations.services.copilot.sessions import User

NOT_SIGNED_IN = "Sign in first: /copilot/login."


class SessionLogin(SessionAuthentication):
    """The session's user; what changes something needs the CSRF token as well, in the header X-CSRFToken."""

    def authenticate_header(self, request: Request) -> str:
        """What makes it a 401."""
        return 'Session realm="copilot"'


class IsSignedIn(BasePermission):
    """Only for somebody."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """True. Raises NotAuthenticated where nobody is signed in."""
        if request.user is None or not request.user.is_authenticated:
            raise NotAuthenticated(NOT_SIGNED_IN)
        return True


def user_of(request: Any) -> User:
    """Who asks; IsSignedIn, or Django's login_required, has seen to it that there is somebody."""
    return User(request.user.pk, request.user.get_full_name() or request.user.get_username())
