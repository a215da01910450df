"""Acts of people that are no message: with a message (a reaction, an edit, a deletion), or in the conversation."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import ActivityKind
from conversations.models.checks import one_of
from conversations.models.client import Client
from conversations.models.conversation import Chunk, Conversation
from conversations.models.of_client import OfClient, SameClientKey


class Activity(OfClient):
    """Something that a person did with a message, or in the conversation after it.

    reaction          `text` is the emoji, '' once it was taken back; a message has one reaction at most
    edit              `text` is the new text
    deletion          the person deleted the message
    missed_call, call_permission, referral
                      in the conversation: `chunk` is the newest message then, `text` says what happened

    An edit or a deletion also writes a correction, which is how the message reads from then on; so everything that
    reads messages knows of it. Both go with their chunk.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="activities", db_constraint=False, db_index=False
    )  # cascades in the database
    chunk = SameClientKey(
        Chunk, on_delete=models.DO_NOTHING, related_name="activities", db_constraint=False, db_index=False
    )  # goes with the conversation, or with its chunks when it is archived
    kind = models.CharField(max_length=20, choices=[(kind.value, kind.value) for kind in ActivityKind])
    text = models.TextField(blank=True, default="", db_default="")
    metadata = models.JSONField(blank=True, default=dict, db_default={})
    message_id = models.TextField(blank=True, default="", db_default="")  # the provider's id of the activity
    occurred_at = models.DateTimeField(help_text="By the provider's clock.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_activities"
        ordering = ["id"]
        verbose_name_plural = "activities"
        constraints = [
            models.UniqueConstraint(
                name="one_reaction_to_a_message", fields=["client", "chunk"], condition=models.Q(kind="reaction")
            ),
            models.UniqueConstraint(
                name="one_deletion_of_a_message", fields=["client", "chunk"], condition=models.Q(kind="deletion")
            ),
            # An activity that is delivered again is found, not stored.
            models.UniqueConstraint(
                name="one_activity_once",
                fields=["client", "conversation", "message_id"],
                condition=~models.Q(message_id="") & ~models.Q(kind="reaction"),
            ),
            models.CheckConstraint(name="activity_kind_known", condition=one_of("kind", ActivityKind)),
        ]
        indexes = [
            models.Index(name="activities_of_conversation", fields=["client", "conversation"]),
            models.Index(name="activities_of_chunk", fields=["client", "chunk"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.text}".strip()[:80]
