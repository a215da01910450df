"""The jobs that change many conversations, a batch at a time."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from conversations.models.assistant import Assistant
from conversations.models.choices import Choices


class BulkJob(models.Model):
    """One change of many conversations, and its progress.

    `handled` counts the finished ones of `sessions`, in their order: `changed`, or `refused` if a conversation did not
    allow the change (it had ended already, for example). The job runs while its page is open, and can be resumed.
    """

    class Kind(Choices):
        """The change of each conversation."""

        CLOSE = "close"
        ASSIGN = "assign"
        ARCHIVE = "archive"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=Kind)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    reason = models.CharField(max_length=200, blank=True, default="")
    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    sessions = ArrayField(models.UUIDField())
    handled = models.PositiveIntegerField(default=0)
    changed = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "bulk_jobs"
        constraints = [
            models.CheckConstraint(
                name="bulk_job_kind_known", condition=models.Q(kind__in=["close", "assign", "archive"])
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.handled}/{len(self.sessions)}"
