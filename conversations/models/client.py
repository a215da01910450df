"""The tenant, who may speak for it, and who may look at it."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now

DEFAULT_GOAL = "Handle inbound enquiry"

sub_domain_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
    "A sub-domain is 1 to 63 lower-case letters, digits and hyphens, and neither starts nor ends with a hyphen.",
)


class Client(models.Model):
    """A tenant: a business whose assistants talk to people. Its policies say how sessions age and who answers."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    sub_domain = models.CharField(max_length=63, unique=True, validators=[sub_domain_validator])
    is_active = models.BooleanField(default=True, db_default=True)
    auto_reply = models.BooleanField(
        default=True, db_default=True, help_text="Whether the assistant answers by itself what people write."
    )
    answers_synced = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether the assistant also answers what agents record by the sync protocol.",
    )
    default_goal = models.TextField(default=DEFAULT_GOAL, db_default=DEFAULT_GOAL)
    stale_after = models.DurationField(default=timedelta(minutes=10), db_default=timedelta(minutes=10))
    expire_after = models.DurationField(default=timedelta(hours=24), db_default=timedelta(hours=24))
    archive_after = models.DurationField(default=timedelta(days=30), db_default=timedelta(days=30))
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "clients"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="client_ages_in_order",
                condition=models.Q(stale_after__gt=timedelta(0), expire_after__gte=models.F("stale_after")),
                violation_error_message="A session must become stale after some time, and expire no sooner than that.",
            ),
            models.CheckConstraint(name="client_archives_later", condition=models.Q(archive_after__gte=timedelta(0))),
        ]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A key with which a program speaks for one client. Only its SHA-256 is kept: the key has 256 random bits."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100, default="key")
    prefix = models.CharField(max_length=16, help_text="The key's beginning, to tell keys apart.")
    key_hash = models.BinaryField(max_length=32, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "api_keys"
        ordering = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.prefix}…"


class Membership(models.Model):
    """What a Django user may do for a client. Superusers see all."""

    class Role(models.TextChoices):
        """Each may do what the one before may."""

        VIEWER = "viewer"
        AGENT = "agent"
        MANAGER = "manager"

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.VIEWER)
    sees_receipts = models.BooleanField(
        "sees context receipts",
        default=False,
        db_default=False,
        help_text="What the model was given for each reply, system prompt and all. Managers always see it.",
    )

    class Meta:
        db_table = "memberships"
        constraints = [
            models.UniqueConstraint(name="one_membership_per_client", fields=["client", "user"]),
            models.CheckConstraint(
                name="membership_role_known", condition=models.Q(role__in=["viewer", "agent", "manager"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.client}"
