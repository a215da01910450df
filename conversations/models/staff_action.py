"""The audit log of changes that staff make in the back office."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from conversations.models.client import Client


class StaffAction(models.Model):
    """One action of a member of staff: written once, in the action's own transaction, and never changed.

    `user_name` stays when the user is deleted, and `object_name` when the row is. `changes` has the changed fields of a
    form with [before, after]; of a secret, only that it was changed. Changes of conversations are in their own ledger
    (ConversationEvent).
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    user_name = models.CharField(max_length=150)
    verb = models.CharField(max_length=40)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    object_name = models.CharField(max_length=200)
    changes: models.JSONField[Any, Any] = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "staff_actions"
        ordering = ["-id"]
        indexes = [
            # Used by the audit log's page: a client's newest first.
            models.Index(name="staff_actions_of_client", fields=["client", "-id"]),
            # Used by a row's history.
            models.Index(name="staff_actions_on_object", fields=["object_type", "object_id", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.user_name} {self.verb} {self.object_type} {self.object_name}"
