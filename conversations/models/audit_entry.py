"""The audit chain: what staff and programs did, as entries that each hold the hash of the one before."""

from __future__ import annotations

from django.db import models

from conversations.models.client import Client


class AuditEntry(models.Model):
    """One entry of a client's chain, or of the installation's where `client` is empty. Written once, never changed.

    It has ids and what was done, and no words: an erasure changes no entry. `hash` is the SHA-256 over the hash of the
    entry before and this one (services/core/audit_chain.py).
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    number = models.BigIntegerField()
    actor = models.CharField(max_length=10)  # staff, api or system
    actor_id = models.CharField(max_length=40)  # of a user; the beginning of an API key
    verb = models.CharField(max_length=120)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    fields = models.JSONField(default=list, db_default=[])  # the names of what was changed
    at = models.DateTimeField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        db_table = "audit_entries"
        verbose_name_plural = "audit entries"
        constraints = [
            # Used by each new entry, which reads the newest, and by the export.
            models.UniqueConstraint(
                name="one_audit_entry_per_number", fields=["client", "number"], nulls_distinct=False
            ),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.verb}"
