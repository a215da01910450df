"""A session's chat at an engine that keeps the conversation itself."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.conversation import Conversation
from conversations.models.erasure import Erasure


class EngineChat(models.Model):
    """One chat at Retell. A session has one at a time: `conversations.chat_id` names it.

    ongoing ──► ended      by its agent, by silence, by us at the end of the session
       └──────► replaced   it refused to go on, and another took its place

    `told` is the position up to which it certainly heard, in `turns` messages of the person. `asked` is set before each
    message and cleared with its answer: where it is set, an answer was lost, and Retell is asked what became of it.
    `due_at` says that something is to be done about its end: it is ended where the session is over, and the session is
    closed where its agent ended it.
    """

    class Status(models.TextChoices):
        """See the drawing."""

        ONGOING = "ongoing"
        ENDED = "ended"
        REPLACED = "replaced"

    chat_id = models.CharField(max_length=100, primary_key=True)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="chats", db_constraint=False
    )  # cascades in the database
    agent_id = models.CharField(max_length=100)
    status = models.CharField(max_length=10, choices=Status, default=Status.ONGOING)
    told = models.PositiveIntegerField(default=0)
    turns = models.PositiveIntegerField(default=0)
    asked = models.PositiveIntegerField(null=True)
    ended_by_agent = models.BooleanField(default=False)
    analysis = models.JSONField(null=True)
    due_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "engine_chats"
        ordering = ["created_at"]
        constraints = [
            models.CheckConstraint(
                name="engine_chat_status_known", condition=models.Q(status__in=["ongoing", "ended", "replaced"])
            )
        ]
        indexes = [
            # Used by the task that ends chats.
            models.Index(name="chats_to_be_settled", fields=["due_at"], condition=models.Q(due_at__isnull=False))
        ]

    def __str__(self) -> str:
        return self.chat_id


class EngineChatRemoval(models.Model):
    """A chat at Retell whose session is deleted here, and which is to be deleted there: tried until it is, and Retell
    says that it does not know it.

    Then the row goes; that of an erasure is kept (`removed_at`) as long as the erasure keeps ids.
    """

    chat_id = models.CharField(max_length=100, primary_key=True)
    erasure = models.ForeignKey(Erasure, on_delete=models.CASCADE, null=True, related_name="chats")
    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    error = models.CharField(max_length=40, blank=True, default="", db_default="")
    removed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "engine_chat_removals"
        indexes = [
            # Used by the task that deletes chats.
            models.Index(name="chats_to_be_removed", fields=["due_at"], condition=models.Q(removed_at__isnull=True))
        ]

    def __str__(self) -> str:
        return self.chat_id
