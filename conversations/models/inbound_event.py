"""What arrived and is no chunk: kept to be looked at and replayed, or as a trace of what was here once."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.channel_account import ChannelAccount
from conversations.models.client import Client


class InboundEvent(models.Model):
    """Something a webhook brought that did not become a chunk, with its reason and raw body.

    `reason`: `not_a_turn`, `unknown_type`, `unknown_account`, `malformed`, `echo`, `processing_failed`, or
    `receipt_unmatched` for a receipt that is faster than our own commit of the send.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="inbound_events")
    channel_account = models.ForeignKey(
        ChannelAccount, on_delete=models.CASCADE, null=True, related_name="+", db_index=False
    )
    provider = models.CharField(max_length=20)
    kind = models.CharField(max_length=40)
    reason = models.CharField(max_length=40)
    message_id = models.TextField(blank=True, default="")
    raw = models.JSONField(default=dict)
    received_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "inbound_events"
        ordering = ["-id"]
        indexes = [
            # Used when a send is settled: receipts that were here before it.
            models.Index(
                name="early_receipts",
                fields=["channel_account", "message_id"],
                condition=models.Q(reason="receipt_unmatched"),
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class MessageTombstone(models.Model):
    """The dedupe key of a message whose session was purged: a provider that delivers it again opens nothing."""

    dedupe_key = models.UUIDField(primary_key=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "message_tombstones"

    def __str__(self) -> str:
        return str(self.dedupe_key)
