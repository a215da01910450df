"""The chats at an engine that keeps chats itself (Retell), and their removal."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.choices import Choices
from conversations.models.conversation import Conversation
from conversations.models.erasure import Erasure
from conversations.models.of_client import OfClient, SameClientKey


class EngineChat(OfClient):
    """One chat at Retell. A conversation has one at a time: `conversations.chat_id` names it.

    ongoing ──► ended      by its agent, by silence, or by us at the end of the conversation
       └──────► replaced   it took no more messages, and a new chat replaced it

    `told` is the position up to which the chat certainly has the conversation, in `turns` messages of the person.
    `asked` is set before each message and cleared with its answer: if it is set, an answer was lost, and the chat is
    read at Retell. `due_at` is set when the chat is to be ended (the conversation is over), or when the conversation is
    to be closed (its agent ended the chat).
    """

    class Status(Choices):
        """The states of the diagram above."""

        ONGOING = "ongoing"
        ENDED = "ended"
        REPLACED = "replaced"

    chat_id = models.CharField(max_length=100, primary_key=True)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="chats", db_constraint=False, db_index=False
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
            models.Index(name="chats_to_be_settled", fields=["due_at"], condition=models.Q(due_at__isnull=False)),
            models.Index(name="chats_of_conversation", fields=["client", "conversation"]),
        ]

    def __str__(self) -> str:
        return self.chat_id


class EngineChatRemoval(OfClient):
    """A chat at Retell that is to be deleted there, because its conversation was deleted here.

    The deletion is retried until Retell answers that it does not know the chat. Then the row is deleted; the row of an
    erasure stays (`removed_at`) as long as the erasure keeps ids.
    """

    chat_id = models.CharField(max_length=100, primary_key=True)
    erasure = SameClientKey(
        Erasure, on_delete=models.CASCADE, null=True, related_name="chats", db_constraint=False, db_index=False
    )
    due_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    error = models.CharField(max_length=40, blank=True, default="", db_default="")
    removed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "engine_chat_removals"
        indexes = [
            # Used by the task that deletes chats.
            models.Index(name="chats_to_be_removed", fields=["due_at"], condition=models.Q(removed_at__isnull=True)),
            models.Index(name="removals_of_erasure", fields=["client", "erasure"]),
        ]

    def __str__(self) -> str:
        return self.chat_id
