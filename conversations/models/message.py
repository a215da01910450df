"""The outbound messages and their delivery."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import AddressKind
from conversations.models.attachment import Attachment
from conversations.models.channel_account import ChannelAccount
from conversations.models.checks import one_of
from conversations.models.choices import Choices
from conversations.models.conversation import Chunk, Conversation
from conversations.models.of_client import OfClient, SameClientKey


class Message(OfClient):
    """One outbound send: one part of a chunk's text, or one of its files.

    queued ──► claimed ──► sending ──► sent ──► delivered ──► read
       ▲          │           ├──────► failed (with the provider's code)
       └──────────┴───────────┤
     (lease over, back-off)   └──────► unknown ──► the status of its next receipt
    queued, claimed ──► cancelled (takeover, close, opt-out, an earlier part failed)

    A `claimed` message can be claimed again when its lease is over. `sending` is written just before the request: after
    a crash or a lost answer the message is `unknown`, unless the provider takes our id as an idempotency key.
    """

    class Status(Choices):
        """The states of the diagram above."""

        QUEUED = "queued"
        CLAIMED = "claimed"
        SENDING = "sending"
        UNKNOWN = "unknown"
        SENT = "sent"
        DELIVERED = "delivered"
        READ = "read"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="messages", db_constraint=False, db_index=False
    )  # cascades in the database
    chunk = SameClientKey(
        Chunk, on_delete=models.DO_NOTHING, related_name="messages", db_constraint=False, db_index=False
    )  # goes with the conversation, or with its chunks when it is archived
    part = models.PositiveSmallIntegerField(default=1)
    parts = models.PositiveSmallIntegerField(default=1)
    channel_account = SameClientKey(
        ChannelAccount, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    to_address = models.CharField(max_length=200)
    to_kind = models.CharField(max_length=10, choices=[(k.value, k.value) for k in AddressKind])
    text = models.TextField()
    # The file that is sent in place of the text. It may be deleted before the message.
    attachment = SameClientKey(
        Attachment, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False, db_index=False
    )
    # Sent even after an end or a takeover: it belongs to that end or takeover, or staff sent it again.
    unconditional = models.BooleanField(default=False, db_default=False)
    reply_to = models.TextField(blank=True, default="", db_default="")  # the provider's id of the quoted message
    # What is sent beside the text, as plain JSON: `choices` (channels_out/choices.py). Null: nothing.
    content = models.JSONField(null=True, blank=True)
    # "name language" of the template that is sent instead of the text, once that is decided.
    template = models.CharField(max_length=540, blank=True, default="", db_default="")

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED, db_default=Status.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    due_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)
    provider_message_id = models.TextField(blank=True, default="", db_default="")
    receipt_sequence = models.PositiveIntegerField(null=True)  # of the newest receipt, if the provider numbers them
    code = models.CharField(max_length=40, blank=True, default="", db_default="")
    reason = models.CharField(max_length=500, blank=True, default="", db_default="")

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    sending_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "conversation_messages"
        ordering = ["chunk_id", "part"]
        constraints = [
            models.UniqueConstraint(name="one_part_once", fields=["client", "chunk", "part"]),
            # Used by receipts.
            models.UniqueConstraint(
                name="one_provider_message_once",
                fields=["client", "channel_account", "provider_message_id"],
                condition=~models.Q(provider_message_id=""),
            ),
            models.CheckConstraint(
                name="message_status_known",
                condition=one_of(
                    "status",
                    ("queued", "claimed", "sending", "unknown", "sent", "delivered", "read", "failed", "cancelled"),
                ),
            ),
            models.CheckConstraint(
                name="message_part_of_parts", condition=models.Q(part__gte=1, part__lte=models.F("parts"))
            ),
        ]
        indexes = [
            models.Index(name="messages_of_conversation", fields=["client", "conversation"]),
            # Used by the dispatcher's poll: the accounts that have messages to send, and then each account's.
            models.Index(
                name="messages_queued", fields=["channel_account", "due_at"], condition=models.Q(status="queued")
            ),
            # Used by the dispatcher's poll: unsettled messages, oldest first within a conversation.
            models.Index(
                name="messages_unsettled",
                fields=["client", "conversation", "chunk", "part"],
                condition=models.Q(status__in=["queued", "claimed", "sending", "unknown"]),
            ),
            # Used by the dashboard: recent failures.
            models.Index(name="messages_failed", fields=["failed_at"], condition=models.Q(status="failed")),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.part}/{self.parts}"
