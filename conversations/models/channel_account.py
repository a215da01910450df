"""A client's account at a provider."""

from __future__ import annotations

import uuid
from datetime import timedelta
from functools import cached_property

from django.core.validators import MinValueValidator, RegexValidator, URLValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from channels_out.kinds import Channel
from conversations.models.assistant import Assistant
from conversations.models.choices import CHANNELS, Choices
from conversations.models.client import Client
from conversations.models.fields import EncryptedJSONField


class ChannelAccount(models.Model):
    """A client's account at a provider, for incoming and outgoing messages: its address there and its credentials.

    `address` is the one in the provider's payloads (WhatsApp: the phone number id). `credentials` are encrypted at
    rest.
    """

    class Health(Choices):
        """The account's health. Broken: the provider refuses the credentials; messages wait until they are fixed."""

        OK = "ok"
        BROKEN = "broken"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="channel_accounts")
    assistant = models.ForeignKey(Assistant, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    channel = models.CharField(max_length=10, choices=CHANNELS)
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
    silence = models.DurationField(
        "silence after a colleague",
        default=timedelta(hours=1),
        db_default=timedelta(hours=1),
        validators=[MinValueValidator(timedelta(0))],
        help_text="So long the assistant is silent after a colleague answered in the provider's own app or inbox."
        " 0: it is not silent.",
    )
    health = models.CharField(max_length=10, choices=Health, default=Health.OK, db_default=Health.OK)
    health_reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    # The time of the repair: refusals of messages that were sent before it do not break the account again.
    mended_at = models.DateTimeField(null=True, editable=False)
    # The provider's account above this one (WhatsApp Business account), learned from webhooks, and what it told last.
    business_id = models.CharField(
        "business account",
        max_length=64,
        blank=True,
        default="",
        db_default="",
        validators=[RegexValidator(r"^[A-Za-z0-9._-]*\Z", _("Write the id as the provider shows it."))],
        help_text="The id of the WhatsApp Business account. It is learned from the first message too.",
    )
    notice = models.CharField(max_length=300, blank=True, default="", db_default="", editable=False)
    notice_at = models.DateTimeField(null=True, editable=False)
    # What the last check found: [{"sentence": …, "is_fine": …}], worst first.
    checked_at = models.DateTimeField(null=True, editable=False)
    findings = models.JSONField(default=list, db_default=[], blank=True, editable=False)
    # When the list of templates was last read, or tried in vain, and why it could not be read.
    templates_at = models.DateTimeField(null=True, editable=False)
    templates_problem = models.CharField(max_length=300, blank=True, default="", db_default="", editable=False)
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
        indexes = [
            # Used by events about a business account.
            models.Index(name="accounts_by_business", fields=["business_id"], condition=~models.Q(business_id="")),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.provider} {self.address}"

    @cached_property
    def key(self) -> str:
        """Return the id as text: within it a provider keeps message ids unique, and it names the account's thread."""
        return str(self.pk)
