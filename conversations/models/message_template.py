"""The templates of channel accounts, as their providers list them."""

from __future__ import annotations

import uuid

from django.db import models

from conversations.models.channel_account import ChannelAccount
from conversations.models.client import Client


class MessageTemplate(models.Model):
    """A message that a provider has approved, or not yet, for a channel account: one name in one language.

    The rows are a copy of the provider's list (services/delivery/template_catalogue.py). `status`, `category` and
    `quality` are the provider's words, in capitals: APPROVED, PENDING, REJECTED, PAUSED, DISABLED; MARKETING, UTILITY,
    AUTHENTICATION; GREEN, YELLOW, RED, UNKNOWN.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    channel_account = models.ForeignKey(ChannelAccount, on_delete=models.CASCADE, related_name="templates")
    name = models.CharField(max_length=512)
    language = models.CharField(max_length=20)
    status = models.CharField(max_length=30)
    category = models.CharField(max_length=30, blank=True, default="", db_default="")
    quality = models.CharField(max_length=20, blank=True, default="", db_default="")
    reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    components = models.JSONField(default=list, db_default=[], blank=True)
    seen_at = models.DateTimeField(help_text="When the provider last listed it.")

    class Meta:
        db_table = "message_templates"
        ordering = ["name", "language"]
        constraints = [
            # Used by every look for a template, and by the copying of the provider's list.
            models.UniqueConstraint(
                name="one_template_per_language", fields=["client", "channel_account", "name", "language"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.language})"
