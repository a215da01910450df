"""The inbound events that became no chunk, the refused webhooks, and the tombstones of deleted messages."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.channel_account import ChannelAccount
from conversations.models.client import Client
from conversations.models.of_client import OfClient


class InboundEvent(models.Model):
    """An event of a webhook that did not become a chunk, with the reason and the raw payload.

    reason      `not_a_turn`, `unknown_type`, `unknown_account`, `malformed`, `echo`, `processing_failed`, `call_over`
                (the words came after the end of their call), `too_old` (the message was sent longer ago than any
                provider delivers again), or `receipt_unmatched` (the receipt came before we committed the send)
    address     the account's address in the payload, whether or not there is such an account
    raw         the input of the adapter's `replayed`: one item, or a request whose events failed alike
    retry_at    the time when the sweep replays the event
    attempts    the number of replays, counted before each begins
    settled_at  the time when the event was processed after all
    outcome     the result of the last replay
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="inbound_events")
    channel_account = models.ForeignKey(
        ChannelAccount, on_delete=models.CASCADE, null=True, related_name="+", db_index=False
    )
    channel = models.CharField(max_length=10, blank=True, default="", db_default="")
    provider = models.CharField(max_length=20)
    address = models.CharField(max_length=255, blank=True, default="", db_default="")
    kind = models.CharField(max_length=40)
    reason = models.CharField(max_length=40)
    message_id = models.TextField(blank=True, default="")
    raw = models.JSONField(default=dict)
    received_at = models.DateTimeField(db_default=Now(), editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    retry_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=200, blank=True, default="", db_default="")

    class Meta:
        db_table = "inbound_events"
        ordering = ["-id"]
        indexes = [
            # Used by the list of events with one reason.
            models.Index(name="events_by_reason", fields=["reason", "-id"]),
            # Used by the deletion of old events.
            models.Index(name="events_by_age", fields=["received_at"]),
            # Used by the sweep and the dashboard: events that we failed to process, client by client.
            models.Index(
                name="events_to_retry",
                fields=["client", "retry_at"],
                condition=models.Q(reason="processing_failed", settled_at__isnull=True),
            ),
            # Used when a send is committed: receipts that came before it.
            models.Index(
                name="early_receipts",
                fields=["channel_account", "message_id"],
                condition=models.Q(reason="receipt_unmatched"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class RefusedWebhooks(models.Model):
    """The number of webhooks with a bad signature on one day; nothing of them is stored.

    `channel_account` is the account in their payload, which the signature does not prove; None if it is none of ours.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    channel = models.CharField(max_length=10)
    provider = models.CharField(max_length=20)
    channel_account = models.ForeignKey(ChannelAccount, on_delete=models.CASCADE, null=True, related_name="refused")
    day = models.DateField()
    count = models.PositiveBigIntegerField(default=0)
    last_at = models.DateTimeField()

    class Meta:
        db_table = "refused_webhooks"
        ordering = ["-day", "-last_at"]
        verbose_name_plural = "refused webhooks"
        constraints = [
            models.UniqueConstraint(
                name="one_count_a_day",
                fields=["channel", "provider", "channel_account", "day"],
                nulls_distinct=False,
            )
        ]

    def __str__(self) -> str:
        return f"{self.count} on {self.day}"


class MessageTombstone(OfClient):
    """The dedupe key of a message whose conversation was deleted: a repeated delivery opens no new conversation."""

    dedupe_key = models.UUIDField(primary_key=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "message_tombstones"

    def __str__(self) -> str:
        return str(self.dedupe_key)
