"""A client's account at a provider."""

from __future__ import annotations

import uuid

from django.core.validators import URLValidator
from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import Channel
from conversations.models.assistant import Assistant
from conversations.models.client import Client
from conversations.models.fields import EncryptedJSONField


class ChannelAccount(models.Model):
    """Where a client's messages come in and go out: a provider, the address it knows us by, and credentials.

    `address` is what the provider's payload names (WhatsApp: the phone number id). `credentials` are encrypted at rest.
    """

    class Health(models.TextChoices):
        """Broken: the provider refuses the credentials; messages wait until it is mended."""

        OK = "ok"
        BROKEN = "broken"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="channel_accounts")
    assistant = models.ForeignKey(Assistant, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    channel = models.CharField(max_length=10, choices=[(c.value, c.value) for c in Channel])
    provider = models.CharField(max_length=20)
    address = models.CharField(max_length=200)
    name = models.CharField(max_length=200, blank=True, default="")
    credentials = EncryptedJSONField(default=dict, blank=True, editable=False)
    base_url = models.CharField(
        max_length=300,
        blank=True,
        default="",
        validators=[URLValidator(schemes=["http", "https"])],
        help_text="Empty: the provider's own.",
    )
    is_active = models.BooleanField(default=True)
    is_simulated = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Its provider is the channel simulator: nothing leaves Convo.",
    )
    health = models.CharField(max_length=10, choices=Health, default=Health.OK, db_default=Health.OK)
    health_reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    # Since when it is tried again: what was sent before that and is refused says nothing of the account any more.
    mended_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "channel_accounts"
        ordering = ["created_at"]
        constraints = [
            # One address is one tenant's, whoever claims it; sandboxes are everybody's own. A number can have SMS and
            # voice. Used by provider webhooks.
            models.UniqueConstraint(
                name="one_account_per_address",
                fields=["provider", "address", "channel"],
                condition=~models.Q(provider="sandbox"),
            ),
            models.UniqueConstraint(
                name="one_sandbox_per_client_and_address",
                fields=["client", "channel", "address"],
                condition=models.Q(provider="sandbox"),
            ),
            models.CheckConstraint(
                name="account_channel_known", condition=models.Q(channel__in=[c.value for c in Channel])
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.provider} {self.address}"
