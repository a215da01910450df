"""The copilot's role in a cluster: it connects to the workers itself, so that its confinement does not hang on a
setting.

Whose rows it sees there are settings (core/row_level_security.py). Where these are lost, nothing is shown.
"""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from conversations.services.core.errors import ConflictError


def let_role_connect() -> None:
    """Let the role sign in. Raises ConflictError where it may not, and we may not let it."""
    role = settings.COPILOT_ROLE
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role])
        if cursor.fetchall() == [(True,)]:
            return
        try:
            with transaction.atomic():
                cursor.execute(f'ALTER ROLE "{role}" LOGIN')
        except DatabaseError:
            raise ConflictError(
                f"The copilot's role connects to the workers. Have a superuser run on the coordinator: "
                f'ALTER ROLE "{role}" LOGIN;'
            ) from None
