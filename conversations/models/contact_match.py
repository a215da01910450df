"""Pairs of contacts that seem to be one person."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from conversations.models.choices import Choices
from conversations.models.client import Client
from conversations.models.contact import Contact
from conversations.models.of_client import OfClient, SameClientKey


class ContactMatch(OfClient):
    """The evidence that two contacts of a client are one person, and the decision of staff.

    open ──► merged      (merging contacts)
      └────► dismissed   they are two people; they can still be merged

    A pair has one row, `first` before `second` by id; only the first evidence is stored. `message_id` is the sender's
    id of the message with the evidence, on `channel`.
    """

    class Evidence(Choices):
        """The kinds of evidence."""

        SAME_PHONE = "same_phone", "both have the same phone"
        SAME_MESSAGE = "same_message", "one message named an address of each"
        MOVED = "moved", "the channel said that the one's address became the other's"
        ENTERED = "entered", "a colleague entered the one's phone or e-mail for the other"

    class State(Choices):
        """The states of the diagram above."""

        OPEN = "open"
        MERGED = "merged"
        DISMISSED = "dismissed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    first = SameClientKey(
        Contact, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    second = SameClientKey(
        Contact, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    evidence = models.CharField(max_length=20, choices=Evidence)
    channel = models.CharField(max_length=10, blank=True, default="", db_default="")
    message_id = models.TextField(blank=True, default="", db_default="")
    found_at = models.DateTimeField(db_default=Now())
    state = models.CharField(max_length=10, choices=State, default=State.OPEN, db_default=State.OPEN)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    decided_by_name = models.CharField(max_length=150, blank=True, default="", db_default="")
    decided_at = models.DateTimeField(null=True)
    moved: models.JSONField[Any, Any] = models.JSONField(
        default=dict, db_default={}
    )  # the number of moved rows by kind

    class Meta:
        db_table = "contact_matches"
        verbose_name_plural = "contact matches"
        ordering = ["-found_at", "-id"]
        constraints = [
            models.UniqueConstraint(name="one_match_per_pair", fields=["client", "first", "second"]),
            models.CheckConstraint(name="match_in_order", condition=models.Q(first__lt=models.F("second"))),
            models.CheckConstraint(
                name="match_evidence_known",
                condition=models.Q(evidence__in=["same_phone", "same_message", "moved", "entered"]),
            ),
            models.CheckConstraint(
                name="match_state_known",
                condition=models.Q(state="open", decided_at__isnull=True)
                | models.Q(state__in=["merged", "dismissed"], decided_at__isnull=False),
            ),
        ]
        indexes = [
            # Used by the list: a client's newest first.
            models.Index(name="matches_of_client", fields=["client", "-found_at"]),
            models.Index(name="matches_of_second", fields=["client", "second"]),
        ]

    def __str__(self) -> str:
        return f"{self.get_evidence_display()}: {self.state}"
