"""The events that programs elsewhere are told of: where they are posted, in which order, and what became of it."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from conversations.models.checks import one_of
from conversations.models.choices import Choices
from conversations.models.client import Client
from conversations.models.fields import EncryptedJSONField
from conversations.models.of_client import OfClient, SameClientKey


class EventKind(Choices):
    """The kinds of events."""

    MESSAGE_IN = "message.in", "A person wrote, or spoke."
    MESSAGE_OUT = "message.out", "The assistant, a colleague or a program answered."
    MESSAGE_EDITED = "message.edited", "A person edited a message."
    MESSAGE_DELETED = "message.deleted", "A person deleted a message."
    MESSAGE_CORRECTED = "message.corrected", "Staff corrected or redacted a message, or a recording was written down."
    DELIVERY = "delivery.updated", "A message that was sent reached its next status."
    OPENED = "conversation.opened", "A conversation was opened."
    REVIVED = "conversation.revived", "A stale conversation became active again."
    STALE = "conversation.stale", "A conversation became stale."
    ENDED = "conversation.ended", "A conversation was closed or expired."
    ARCHIVED = "conversation.archived", "A conversation was archived."
    TAKEN_OVER = "conversation.taken_over", "A person took the conversation over."
    HANDED_BACK = "conversation.handed_back", "The assistant has the conversation again."
    NEEDS_STAFF = "conversation.needs_staff", "The conversation waits for a person."
    LABELLED = "conversation.labelled", "The labels of the conversation changed."
    RATED = "conversation.rated", "A person rated an ended conversation."
    CHANGED = "conversation.changed", "Its assistant, account, details or state changed, or what staff keep beside it."
    STEP = "step.updated", "A step was added or changed."
    TOOL = "tool.updated", "A tool call waits, was decided on, or has no known outcome."
    SUMMARY = "summary.ready", "An ended conversation is in memory, with its final summary."
    CONTACT = "contact.changed", "What is known of a contact changed: phone, name, address, opt-out, hold."
    ERASED = "contact.erased", "A contact was erased. Forget what you hold of it."


class EventEndpoint(models.Model):
    """A URL of a client, to which its events are posted, signed.

    posting ──(a request fails)──► failing: one request at a time, later and later ──► posting
       │                              └──(three days without a success)──► paused ──(staff)──► posting
       └──(410, or staff)──► paused
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="event_endpoints", db_index=False)
    url = models.URLField("URL", max_length=500, help_text="Events are posted here, signed. It must be https or http.")
    # The newest first; those after it sign until their time: [{"secret": "whsec_…", "until": ISO 8601 or ""}].
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    kinds = models.JSONField(default=list, db_default=[], blank=True)
    private = models.BooleanField(
        "private conversations too",
        default=False,
        db_default=False,
        help_text="Events of the copilot's conversations, each of which is one signed-in user's own.",
    )
    failures = models.IntegerField(default=0, db_default=0, editable=False)
    failing_since = models.DateTimeField(null=True, editable=False)
    next_try_at = models.DateTimeField(null=True, editable=False)
    last_code = models.CharField("last failure", max_length=40, blank=True, default="", db_default="", editable=False)
    succeeded_at = models.DateTimeField("last success", null=True, editable=False)
    paused_at = models.DateTimeField(null=True, editable=False)
    pause_reason = models.CharField(max_length=40, blank=True, default="", db_default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "event_endpoints"
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(name="one_endpoint_per_url", fields=["client", "url"]),
            models.CheckConstraint(
                name="event_endpoint_kinds_known", condition=models.Q(kinds__contained_by=list(EventKind.values))
            ),
        ]

    def __str__(self) -> str:
        return self.url


class Event(OfClient):
    """One event of a client, at its own position: 1, 2, 3… in the order in which readers may see them.

    A position is given after the commit of what the event tells about (services/events/numbering.py), so whoever has
    read up to a position misses nothing before it. The row holds no words: what an event tells is read from its source.
    """

    class Source(Choices):
        """The row that an event tells about."""

        CHUNK = "chunk"
        LEDGER = "ledger"
        NOTE = "note"

    position = models.BigIntegerField()
    kind = models.CharField(max_length=40)
    conversation_id = models.UUIDField(null=True)  # it may be deleted; the event stays for EVENT_DAYS
    source = models.CharField(max_length=6, choices=Source)
    source_id = models.BigIntegerField()
    private = models.BooleanField()
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "events"
        constraints = [
            # Used by the feed, and by each delivery.
            models.UniqueConstraint(name="one_event_per_position", fields=["client", "position"]),
        ]
        indexes = [
            # Used by an erasure.
            models.Index(name="positions_of_conversation", fields=["client", "conversation_id"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.position}"


class EventNote(OfClient):
    """A fact that an event tells and that no chunk and no line of the ledger holds, such as a receipt."""

    kind = models.CharField(max_length=40)
    conversation_id = models.UUIDField(null=True)
    data = models.JSONField(default=dict, db_default={})
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "event_notes"
        indexes = [
            # Used by an erasure.
            models.Index(name="notes_of_conversation", fields=["client", "conversation_id"]),
        ]

    def __str__(self) -> str:
        return self.kind


class EventDelivery(OfClient):
    """An event on its way to an endpoint.

    pending ──► delivered
       └─(three days)─► failed ──(replay)──► pending
    """

    class Status(Choices):
        """The states of the diagram above."""

        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    endpoint = SameClientKey(EventEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    position = models.BigIntegerField()
    kind = models.CharField(max_length=40)
    conversation_id = models.UUIDField(null=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING, db_default=Status.PENDING)
    attempts = models.IntegerField(default=0, db_default=0)
    due_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True)
    last_attempt_at = models.DateTimeField("last attempt", null=True)
    http_status = models.SmallIntegerField("HTTP status", null=True)
    code = models.CharField("failure", max_length=40, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "event_deliveries"
        verbose_name_plural = "event deliveries"
        constraints = [
            models.UniqueConstraint(name="one_delivery_per_endpoint", fields=["client", "endpoint", "position"]),
            models.CheckConstraint(
                name="event_delivery_status_known", condition=one_of("status", ("pending", "delivered", "failed"))
            ),
        ]
        indexes = [
            # Used by the sender's poll: what is to be posted to each endpoint, in order.
            models.Index(
                name="event_deliveries_pending",
                fields=["client", "endpoint", "position"],
                condition=models.Q(status="pending"),
            ),
            # Used by an erasure.
            models.Index(name="deliveries_of_conversation", fields=["client", "conversation_id"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.position}"


class EventPosition(models.Model):
    """The last position of a client's events. `is_read`: somebody reads them, by the feed or an endpoint."""

    client = models.OneToOneField(Client, on_delete=models.CASCADE, primary_key=True, related_name="+")
    last = models.BigIntegerField(default=0, db_default=0)
    is_read = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "event_positions"

    def __str__(self) -> str:
        return str(self.last)


class EventNumbering(models.Model):
    """The rows of a source that have been given positions (services/events/numbering.py). It belongs to no client."""

    source = models.CharField(max_length=6, primary_key=True)
    numbered = models.TextField(default="{[0,1)}", db_default="{[0,1)}")  # ids, as an int8multirange
    doubt_upto = models.BigIntegerField(null=True)
    doubt_holders = models.JSONField(default=list, db_default=[])

    class Meta:
        db_table = "event_numbering"

    def __str__(self) -> str:
        return self.source
