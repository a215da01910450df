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
    """A client's account at a provider, for incoming and outgoing messages: its address there and its credentials.

    `address` is the one in the provider's payloads (WhatsApp: the phone number id). `credentials` are encrypted at
    rest.
    """

    class Health(models.TextChoices):
        """The account's health. Broken: the provider refuses the credentials; messages wait until they are fixed."""

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
    # The time of the repair: refusals of messages that were sent before it do not break the account again.
    mended_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "channel_accounts"
        ordering = ["created_at"]
        constraints = [
            # One address belongs to one client; sandbox addresses are unique within a client only. A number can have
            # SMS and voice. Used by provider webhooks.
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
