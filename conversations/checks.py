"""System checks that report a wrong configuration (`manage.py check`, and at every start)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections


@register(Tags.security)
def credentials_keys_are_keys(**_: Any) -> list[CheckMessage]:
    """Return an error if one of CREDENTIALS_KEYS cannot encrypt."""
    try:
        for key in settings.CREDENTIALS_KEYS:
            Fernet(key.encode())
    except ValueError:
        return [
            Error(
                "CREDENTIALS_KEYS contains a value that is not a key.",
                hint="Each key must be 32 bytes in url-safe base64: python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'",
                id="convo.E001",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def providers_reach_us_by_https(**_: Any) -> list[CheckMessage]:
    """Return a warning if PUBLIC_BASE_URL is not https."""
    if settings.IS_HTTPS:
        return []
    return [
        Warning(
            f"PUBLIC_BASE_URL is {settings.PUBLIC_BASE_URL}. Cookies are not secure, and providers post to https only.",
            hint="Set it to the https address that providers and staff use.",
            id="convo.W001",
        )
    ]


@register(Tags.database)
def the_database_role_is_no_superuser(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Return a warning if Convo's database role is a superuser, which may do more than Convo needs."""
    found: list[CheckMessage] = []
    for alias in databases or []:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            if cursor.fetchone() == (True,):
                found.append(
                    Warning(
                        f"Convo connects to the database {alias!r} as a superuser.",
                        hint="Use a role of its own that owns the database: CREATE ROLE convo LOGIN.",
                        id="convo.W002",
                    )
                )
    return found


@register(Tags.database)
def the_copilot_has_its_role(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Return a warning if the copilot's database role is missing, or Convo's own may not assume it."""
    found: list[CheckMessage] = []
    for alias in databases or []:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = %s",
                [settings.COPILOT_ROLE],
            )
            if cursor.fetchone() != (True,):
                found.append(
                    Warning(
                        f"The copilot cannot work: it may not take on the role {settings.COPILOT_ROLE} in {alias!r}.",
                        hint=f"A superuser: CREATE ROLE {settings.COPILOT_ROLE} NOLOGIN; GRANT it to Convo's role.",
                        id="convo.W010",
                    )
                )
    return found


@register()
def the_languages_are_compiled(**_: Any) -> list[CheckMessage]:
    """Warn of catalogues that cannot be compiled, since their directory is read-only: their pages are in English."""
    return [
        Warning(f"{path} is not compiled.", hint="Run make compile before the directory is read-only.", id="convo.W011")
        for path in settings.LANGUAGES_NOT_COMPILED
    ]


@register()
def settings_have_their_current_names(**_: Any) -> list[CheckMessage]:
    """Warn of environment variables that have another name now."""
    return [
        Warning(
            f"The environment variable {old} is now called {new}.",
            hint=f"Set {new} instead. {old} is still read if {new} is not set.",
            id="convo.W003",
        )
        for old, new in settings.OUTDATED_VARIABLES.items()
        if os.environ.get(old, "").strip()
    ]
