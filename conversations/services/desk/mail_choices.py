"""Each user's own choice of e-mails, and the links by which they end them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import signing
from django.urls import reverse

from conversations.models import MailChoice
from conversations.services.core.sql import rows

SALT = "convo.mail.unsubscribe"
NOTED_EVERY = timedelta(minutes=1)
HERE_FOR = timedelta(minutes=5)  # a browser says at least every two minutes that it is there
# What a link ends, by the kind of the mail that has it.
ENDED_BY = {"waiting": ("tells_mine", "tells_unassigned"), "digest": ("tells_digest",)}

_NOTE_HERE = """
    UPDATE mail_choices SET here_at = $2 WHERE user_id = $1 AND (here_at IS NULL OR here_at < $3) RETURNING user_id"""


def is_configured() -> bool:
    """Return whether the installation has a mail server."""
    return bool(settings.EMAIL_HOST)


def choice_of(user: Any) -> MailChoice:
    """Return the user's choice; what is usual, not stored yet, if they have made none."""
    return MailChoice.objects.filter(user=user.pk).first() or MailChoice(user=user, address=user.email)


def store(user: Any, values: Mapping[str, Any]) -> None:
    """Store the user's choice."""
    MailChoice.objects.update_or_create(user=user, defaults=dict(values))


def note_here(user_id: int, now: datetime) -> None:
    """Note that the user has the back office open, at most once a minute and only where they want e-mails."""
    rows(_NOTE_HERE, user_id, now, now - NOTED_EVERY)


def is_here(choice: MailChoice, now: datetime) -> bool:
    """Return whether the user has the back office open."""
    return choice.here_at is not None and choice.here_at > now - HERE_FOR


def unsubscribe_link(user_id: int, kind: str) -> str:
    """Return the address that ends the mails of the kind to the user. Whoever has it needs no sign-in."""
    token = signing.dumps([user_id, kind], salt=SALT)
    return settings.PUBLIC_BASE_URL + reverse("mail_unsubscribe", args=[token])


def kind_of(token: str) -> tuple[int, str]:
    """Return the user's id and the kind of mail that the token names. Raises BadSignature if it was not made here."""
    user_id, kind = signing.loads(token, salt=SALT)
    if kind not in ENDED_BY:
        raise signing.BadSignature
    return user_id, kind


def unsubscribe(token: str) -> None:
    """End the mails that the token names. Done again it changes nothing. Raises BadSignature."""
    user_id, kind = kind_of(token)
    MailChoice.objects.filter(user=user_id).update(**dict.fromkeys(ENDED_BY[kind], False))
