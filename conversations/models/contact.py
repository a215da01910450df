"""The contacts (people), and their addresses on channels."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import AddressKind, Channel
from conversations.models.checks import Rule, one_of
from conversations.models.choices import CHANNELS
from conversations.models.client import Client
from conversations.models.of_client import OfClient, SameClientKey


class Contact(OfClient):
    """A person as one client knows them.

    `user_id` is the client's own id for them, or the channel's id if the client never named one. `phone` is E.164; a
    contact is a guest until there is a phone. `login` is the Django user of a contact who signs in to the copilot, who
    is never a guest. `opted_out` has the channels on which they want no messages
    (`whatsapp:marketing`: no templates), with the time, the word and its
    author (the contact, the provider with its code, or staff with a reason):
    {"sms": {"since": "2026-…", "word": "stop", "by": "contact"}}.

    `name` is what the channel or the client's own programs say. `staff_name` is the name by staff: it is shown in place
    of `name`, and no message changes it. `email`, `language` (a tag such as `es` or `pt-br`) and `attributes` (texts by
    key) come from staff (services/staff_actions/edit_contact.py).

    If two contacts turn out to be one person, one row stays as an alias: its `merged_into` is the other contact, who is
    found by the alias's id and user id too. An alias has no data of its own.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="contacts", db_index=False)
    user_id = models.CharField(max_length=200)
    phone = models.CharField(max_length=16, null=True, blank=True)  # noqa: DJ001 - null: not captured yet
    name = models.CharField(max_length=200, blank=True, default="", db_default="")
    staff_name = models.CharField("name by staff", max_length=200, blank=True, default="", db_default="")
    email = models.CharField("e-mail", max_length=254, blank=True, default="", db_default="")
    language = models.CharField(max_length=20, blank=True, default="", db_default="")
    attributes: models.JSONField[Any, Any] = models.JSONField(default=dict, db_default={}, blank=True, editable=False)
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
    # A legal hold: the reason why nothing of this person may be deleted. Empty: no hold.
    hold_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    merged_into = SameClientKey(
        "self",
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        editable=False,
        related_name="aliases",
        db_constraint=False,
        db_index=False,
    )  # cascades in the database
    # Until then the person's next message may say why they rated low, if they have no conversation open.
    comment_until = models.DateTimeField(null=True, editable=False)
    # The staff's correction of the opening memory of one conversation (`known_in`, which started at `known_until`).
    # Later conversations open with this text, in place of everything from before that conversation.
    known = models.TextField("what staff say is known", blank=True, default="", db_default="", editable=False)
    known_until = models.DateTimeField(null=True, editable=False)
    known_in = models.UUIDField(null=True, editable=False)
    known_by = models.CharField(max_length=150, blank=True, default="", db_default="", editable=False)
    known_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "contacts"
        constraints = [
            # Used by the webhook: one user id is one contact of its client.
            models.UniqueConstraint(name="one_contact_per_user_id", fields=["client", "user_id"]),
            # Used by the copilot: a login is one contact of each of its clients.
            models.UniqueConstraint(
                name="one_contact_per_login", fields=["client", "login"], condition=models.Q(login__isnull=False)
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
                name="contact_alias_has_nothing_of_its_own",
                condition=models.Q(merged_into__isnull=True)
                | models.Q(phone__isnull=True, login__isnull=True, opted_out={}, hold_reason="", is_guest=False),
            ),
            models.CheckConstraint(
                name="contact_alias_has_no_details",
                condition=Rule(
                    "{0} IS NULL OR concat({1}, {2}, {3}, {4}) = '{{}}'",
                    *("merged_into", "staff_name", "email", "language", "attributes"),
                ),
            ),
            # Used by staff who enter an e-mail address: one address is one contact of its client.
            models.UniqueConstraint(
                name="one_contact_per_email", fields=["client", "email"], condition=~models.Q(email="")
            ),
            models.CheckConstraint(
                name="contact_with_phone_is_no_guest",
                condition=models.Q(phone__isnull=True) | models.Q(is_guest=False),
            ),
        ]
        indexes = [
            # Used by look-ups by phone: the webhook's first message from an unknown address, staff search.
            models.Index(name="contact_by_phone", fields=["client", "phone"], condition=models.Q(phone__isnull=False)),
            # Used by staff search, which has a user id or the beginning of a phone, and not always a client. The
            # condition keeps the index of user ids from prepared statements, which know the client too: PostgreSQL sees
            # that it is true only where the user id is written into the statement, as the ORM writes it.
            models.Index(
                name="contact_by_start_of_phone",
                fields=["phone"],
                opclasses=["varchar_pattern_ops"],
                condition=models.Q(phone__isnull=False),
            ),
            models.Index(name="contact_by_user_id", fields=["user_id"], condition=~models.Q(user_id="")),
            # Used by the export and the erasure of a person, and by merging.
            models.Index(
                name="contact_aliases", fields=["client", "merged_into"], condition=models.Q(merged_into__isnull=False)
            ),
            # Used by the search of the desk: by parts of names, phones, user ids and e-mail addresses.
            GinIndex(
                models.Func(*("client", "name", "phone", "user_id", "staff_name", "email"), function="pieces_of_names"),
                name="contacts_by_pieces",
            ),
            # Used by the back office: the contacts who want no messages.
            models.Index(name="contacts_opted_out", fields=["client", "id"], condition=~models.Q(opted_out={})),
        ]

    def __str__(self) -> str:
        return self.shown_name or self.user_id

    @property
    def shown_name(self) -> str:
        """Return the name by staff, else the one that the channel or the client's programs say; '' for none."""
        return self.staff_name or self.name


class ContactIdentity(OfClient):
    """An address of a contact on a channel ("device" in the data-model seed). Replies are sent to it unchanged."""

    contact = SameClientKey(
        Contact, on_delete=models.DO_NOTHING, related_name="identities", db_constraint=False, db_index=False
    )  # cascades in the database
    client = models.ForeignKey(
        Client, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    channel = models.CharField(max_length=10, choices=CHANNELS)
    kind = models.CharField(max_length=10, choices=[(k.value, k.value) for k in AddressKind])
    address = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "contact_identities"
        verbose_name_plural = "contact identities"
        constraints = [
            # Used by provider webhooks: one address on a channel is one contact of its client.
            models.UniqueConstraint(name="one_contact_per_address", fields=["client", "channel", "address"]),
            models.CheckConstraint(name="identity_channel_known", condition=one_of("channel", Channel)),
            models.CheckConstraint(name="identity_kind_known", condition=one_of("kind", AddressKind)),
        ]
        # The id has the newest first: opening reads it (services/core/opening.py).
        indexes = [models.Index(name="identities_of_contact", fields=["client", "contact", "id"])]

    def __str__(self) -> str:
        return f"{self.address} on {self.channel}"
