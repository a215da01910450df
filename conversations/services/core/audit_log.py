"""The audit log: which member of the staff changed what in a client's set-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Model

from conversations.models import StaffAction
from conversations.services.core import audit_chain

LONGEST_VALUE = 200
HIDDEN = "…"  # replaces secrets, which the log must not contain


def record(
    user: AbstractBaseUser,
    verb: str,
    row: Model,
    client_id: UUID | None,
    changes: Mapping[str, tuple[Any, Any]] | None = None,
) -> StaffAction:
    """Write into the audit log that the user did this to the row, and return the entry.

    verb: in the past tense, such as "added", "changed" or "revoked"
    client_id: the client whose row it is; None if it is no client's
    changes: field name to its values before and after; replace secrets by HIDDEN
    """
    with transaction.atomic():
        action = StaffAction.objects.create(
            client_id=client_id,
            user_id=user.pk,
            user_name=user.get_username(),
            verb=verb,
            object_type=row._meta.model_name or "",
            object_id=str(row.pk),
            object_name=str(row)[:200],
            changes={name: [_short(before), _short(after)] for name, (before, after) in (changes or {}).items()},
        )
        audit_chain.append(
            client_id,
            actor="staff",
            actor_id=user.pk,
            verb=verb,
            object_type=action.object_type,
            object_id=row.pk,
            fields=changes or (),
        )
    return action


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
