"""Staff for tests: users with roles, and browsers that they are signed in with."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client as HttpClient

from conversations.models import Client, Membership

PASSWORD = "a-long-password"


def staff(name: str, **roles: str) -> Any:
    """A staff user who is no superuser, with these roles: sub-domain to role."""
    user = get_user_model().objects.create_user(name, password=PASSWORD, is_staff=True)
    for sub_domain, role in roles.items():
        Membership.objects.create(user=user, client=Client.objects.get(sub_domain=sub_domain), role=role)
    return user


def superuser(name: str = "boss") -> Any:
    """Somebody who sees all."""
    return get_user_model().objects.create_superuser(name, "", PASSWORD)


def signed_in(user: Any) -> HttpClient:
    """What the user sees with."""
    http = HttpClient()
    http.force_login(user)
    return http
