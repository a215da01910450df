"""The erasures of people: the request, the progress and the certificate, without any erased data."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from conversations.models.client import Client
from conversations.models.of_client import OfClient


class Erasure(OfClient):
    """The erasure of one person.

    begun (the rows are deleted, in one transaction) ──► finished (stores and providers confirmed that they have nothing
                                                          left; the certificate is signed)

    `contact`, `sessions`, `vectors` (index, namespace, id) and the `chats` at Retell are ids of deleted data. They are
    stored while global memory and chats are being deleted, and some time after, since a process may have been
    remembering at that moment; then only their hashes are left, in the certificate.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+")
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    asked_by_name = models.CharField(max_length=150)
    contact = models.UUIDField(null=True)
    sessions = ArrayField(models.UUIDField(), default=list)
    vectors: models.JSONField[list[list[str]], list[list[str]]] = models.JSONField(default=list)
    removed: models.JSONField[dict[str, int], dict[str, int]] = models.JSONField(default=dict)
    problem = models.CharField(max_length=200, blank=True, default="")
    certificate = models.TextField(blank=True, default="")
    begun_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "erasures"
        ordering = ["-begun_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="erasure_finished_with_its_certificate",
                condition=models.Q(finished_at__isnull=True, certificate="")
                | (models.Q(finished_at__isnull=False) & ~models.Q(certificate="")),
            )
        ]
        indexes = [
            # Used by the sweep: erasures that still have ids.
            models.Index(name="erasures_to_go_on_with", fields=["begun_at"], condition=models.Q(contact__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"erasure of {self.begun_at:%Y-%m-%d %H:%M}"
