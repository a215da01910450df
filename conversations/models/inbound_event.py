"""What arrived and is no chunk: kept to be looked at and replayed, or as a trace of what was here once."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.channel_account import ChannelAccount
from conversations.models.client import Client


class InboundEvent(models.Model):
    """Something a webhook brought that did not become a chunk, with its reason and raw body.

    `reason`: `not_a_turn`, `unknown_type`, `unknown_account`, `malformed`, `echo`, `processing_failed`, `call_over` for
    words that came after the end of their call, or `receipt_unmatched` for a receipt that is faster than our own commit
    of the send. `address` is the account's as the payload names it, whether or not there is such an account. `raw` is
    what the adapter's `replayed` takes: an item of its own, or all of a request where several of its events failed
    alike.

    The sweep replays what has a `retry_at`; `attempts` counts that before it begins. `settled_at`: what it brought is
    where it belongs. `outcome` is what the last replay said.
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
            # Used by the list of events, narrowed down to a reason.
            models.Index(name="events_by_reason", fields=["reason", "-id"]),
            # Used by trimming.
            models.Index(name="events_by_age", fields=["received_at"]),
            # Used by the sweep, and by the dashboard: what we failed to process.
            models.Index(
                name="events_to_retry",
                fields=["retry_at"],
                condition=models.Q(reason="processing_failed", settled_at__isnull=True),
            ),
            # Used when a send is settled: receipts that were here before it.
            models.Index(
                name="early_receipts",
                fields=["channel_account", "message_id"],
                condition=models.Q(reason="receipt_unmatched"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class RefusedWebhooks(models.Model):
    """How many webhooks with a bad signature came on a day: counted, and nothing of them kept.

    `channel_account` is the one that they named, without having signed for it; None where they named none of ours.
    """

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


class MessageTombstone(models.Model):
    """The dedupe key of a message whose session was purged: a provider that delivers it again opens nothing."""

    dedupe_key = models.UUIDField(primary_key=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "message_tombstones"

    def __str__(self) -> str:
        return str(self.dedupe_key)
