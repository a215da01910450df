"""The ledger of conversations."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.checks import one_of
from conversations.models.choices import Choices
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey


class ConversationEvent(OfClient):
    """One entry of the ledger: a transition of a conversation, its cause and its author."""

    class Actor(Choices):
        """The authors of transitions."""

        CONTACT = "contact"
        ASSISTANT = "assistant"
        STAFF = "staff"
        API = "api"
        SYSTEM = "system"

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="events", db_constraint=False, db_index=False
    )  # cascades in the database
    kind = models.CharField(max_length=40)
    from_status = models.CharField(max_length=10, blank=True, default="", db_default="")
    to_status = models.CharField(max_length=10, blank=True, default="", db_default="")
    cause = models.CharField(max_length=200, blank=True, default="", db_default="")
    actor = models.CharField(max_length=10, choices=Actor)
    actor_name = models.CharField(max_length=200, blank=True, default="", db_default="")
    data = models.JSONField(blank=True, default=dict, db_default={})
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_events"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                name="event_actor_known",
                condition=one_of("actor", ["contact", "assistant", "staff", "api", "system"]),
            )
        ]
        indexes = [models.Index(name="events_of_conversation", fields=["client", "conversation"])]

    def __str__(self) -> str:
        return self.kind
