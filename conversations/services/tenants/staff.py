"""Staff users of a client."""

from __future__ import annotations

import secrets
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.utils.translation import gettext

from conversations.models import Client, Membership
from conversations.services.core.errors import ConflictError


def create_staff(user_name: str, client: Client, role: str) -> tuple[Membership, str]:
    """Create a user who may sign in to the back office and has the role in the client.

    Returns the membership and the password, which is not stored: show it now, once.
    Raises ConflictError `user_name_taken`.
    """
    password = secrets.token_urlsafe(12)
    try:
        with transaction.atomic():
            user = get_user_model().objects.create_user(user_name, password=password, is_staff=True)
            return Membership.objects.create(user=user, client=client, role=role), password
    except IntegrityError:
        raise ConflictError(
            gettext("The user name %(user_name)s is taken. Choose another.") % {"user_name": repr(user_name)},
            code="user_name_taken",
        ) from None


def renew_password(user: Any) -> str:
    """Set a new password for the user and return it. It is not stored: show it now, once.

    Raises ConflictError `signs_in_elsewhere` for a user of an identity provider: with a password they could go on when
    the provider lets them in no more.
    """
    if not user.has_usable_password() and SocialAccount.objects.filter(user=user.pk).exists():
        raise ConflictError(
            gettext("%(user)s signs in by an identity provider.") % {"user": user}, code="signs_in_elsewhere"
        )
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return password
