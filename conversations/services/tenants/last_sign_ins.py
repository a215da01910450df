"""When users signed in last.

It is noted in the user's row, which is whole on every server of a cluster. While one of them is away, nothing can be
written there. Nobody is kept from signing in by that: the time is not noted then.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.models import update_last_login
from django.contrib.auth.signals import user_logged_in
from django.db import DatabaseError, transaction

from conversations.services.core.cluster import is_cluster

log = logging.getLogger(__name__)

DJANGO_S = "update_last_login"  # the name by which Django connects its own note


def register() -> None:
    """Have Django note sign-ins by `note`."""
    user_logged_in.disconnect(dispatch_uid=DJANGO_S)
    user_logged_in.connect(note, dispatch_uid=DJANGO_S)


def note(sender: type[Any], user: Any, **_: Any) -> None:
    """Note that the user signs in now. Raises Django's database errors where there is one server alone."""
    if not is_cluster():
        update_last_login(sender, user)
        return
    try:
        with transaction.atomic():
            update_last_login(sender, user)
    except DatabaseError as error:
        log.warning("a sign-in was not noted: %s", type(error).__name__)
