"""The person, and the addresses under which the person appears on channels."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import AddressKind, Channel
from conversations.models.client import Client


class Contact(models.Model):
    """A person as one client knows them.

    `user_id` is the client's own id for them, or the channel's where the client never named one. `phone` is E.164;
    until there is one, `is_guest` holds. `login` is who they are where they sign in: the copilot's users, never guests.
    `opted_out` says on which channels they want nothing sent, since when, and who said so in which word: themselves,
    their provider with its code, or staff with a reason: {"sms": {"since": "2026-…", "word": "stop", "by": "contact"}}.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="contacts", db_index=False)
    user_id = models.CharField(max_length=200)
    phone = models.CharField(max_length=16, null=True, blank=True)  # noqa: DJ001 - null: not captured yet
    name = models.CharField(max_length=200, blank=True, default="", db_default="")
    is_guest = models.BooleanField(default=True, db_default=True)
    login = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        db_index=False,
    )
    opted_out = models.JSONField(default=dict, db_default={}, blank=True, editable=False)
    # A legal hold: why nothing of this person may be deleted. Empty: none.
    hold_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "contacts"
        constraints = [
            # Used by the webhook: one user id is one contact of its client.
            models.UniqueConstraint(name="one_contact_per_user_id", fields=["client", "user_id"]),
            # Used by the copilot: who signs in is one contact of each of their clients.
            models.UniqueConstraint(
                name="one_contact_per_login", fields=["login", "client"], condition=models.Q(login__isnull=False)
            ),
            models.CheckConstraint(
                name="contact_who_signs_in_is_no_guest",
                condition=models.Q(login__isnull=True) | models.Q(is_guest=False),
            ),
            models.CheckConstraint(
                name="contact_phone_is_e164",
                condition=models.Q(phone__isnull=True) | models.Q(phone__regex=r"^\+[1-9][0-9]{5,14}$"),
            ),
            models.CheckConstraint(
                name="contact_with_phone_is_no_guest",
                condition=models.Q(phone__isnull=True) | models.Q(is_guest=False),
            ),
        ]
        indexes = [
            # Used by look-ups by phone: the webhook's first message from an unknown address, staff search.
            models.Index(name="contact_by_phone", fields=["client", "phone"], condition=models.Q(phone__isnull=False)),
            # Used by staff search, which knows the beginning of a phone or user id and not always the client.
            models.Index(
                name="contact_by_start_of_phone",
                fields=["phone"],
                opclasses=["varchar_pattern_ops"],
                condition=models.Q(phone__isnull=False),
            ),
            models.Index(name="contact_by_start_of_user_id", fields=["user_id"], opclasses=["varchar_pattern_ops"]),
            # Used by the back office: who wants no messages.
            models.Index(name="contacts_opted_out", fields=["client", "id"], condition=~models.Q(opted_out={})),
        ]

    def __str__(self) -> str:
        return self.name or self.user_id


class ContactIdentity(models.Model):
    """An address of a contact on a channel ("device" in the data-model seed): a reply goes to it as it stands."""

    contact = models.ForeignKey(
        Contact, on_delete=models.DO_NOTHING, related_name="identities", db_constraint=False
    )  # cascades in the database
    client = models.ForeignKey(
        Client, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    channel = models.CharField(max_length=10, choices=[(c.value, c.value) for c in Channel])
    kind = models.CharField(max_length=10, choices=[(k.value, k.value) for k in AddressKind])
    address = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "contact_identities"
        verbose_name_plural = "contact identities"
        constraints = [
            # Used by provider webhooks: one address on a channel is one contact of its client.
            models.UniqueConstraint(name="one_contact_per_address", fields=["client", "channel", "address"]),
            models.CheckConstraint(
                name="identity_channel_known", condition=models.Q(channel__in=[c.value for c in Channel])
            ),
            models.CheckConstraint(
                name="identity_kind_known", condition=models.Q(kind__in=[k.value for k in AddressKind])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.address} on {self.channel}"
