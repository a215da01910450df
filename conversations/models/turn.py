"""The turns: attempts at a reply."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from conversations.models.choices import Choices
from conversations.models.conversation import Chunk, Conversation
from conversations.models.of_client import OfSession, SameClientKey


class Turn(OfSession):
    """One attempt at a reply: the snapshot of its prompt, its cost and its outcome.

    running ──► committed   the reply is a chunk
       ├──────► overtaken   the person wrote again meanwhile; the draft is stored here only
       ├──────► dropped     the conversation ended or was taken over meanwhile, or the confidence was too low
       ├──────► failed      the engine failed; retried later, or the fallback was said
       └──────► abandoned   its dispatcher died: the lease ran out

    At most one turn of a conversation runs, by constraint. Its lease is renewed while it runs; after the lease another
    turn may begin.

    A turn whose agent has said that it answers later is still `running` and has `waiting_until`. No process holds it
    and no lease ends it: the agent's callback does, or that time (services/replies/late_replies.py).

    A `streamed` turn is created by the copilot's endpoint without an owner: its lease is over from the start. The
    writer that finds it writes it, as a further attempt of the same turn, so that readers keep their position.
    """

    class Status(Choices):
        """The states of the diagram above."""

        RUNNING = "running"
        COMMITTED = "committed"
        OVERTAKEN = "overtaken"
        DROPPED = "dropped"
        FAILED = "failed"
        ABANDONED = "abandoned"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="turns", db_constraint=False, db_index=False
    )  # cascades in the database
    chunk = SameClientKey(
        Chunk, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False, db_index=False
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING, db_default=Status.RUNNING)
    attempt = models.PositiveSmallIntegerField()
    inbound_sequence = models.PositiveIntegerField(help_text="The newest message of the person that it saw.")
    lease_until = models.DateTimeField()
    streamed = models.BooleanField(default=False, db_default=False)
    stop_asked_at = models.DateTimeField(null=True)
    waiting_until = models.DateTimeField(null=True, help_text="The client's own agent answers later, until then.")
    callback_hash = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="SHA-256 of the token for a callback."
    )
    called_back = models.BooleanField(default=False, db_default=False, help_text="The reply came by a callback.")
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    engine = models.CharField(max_length=20, blank=True, default="")
    model = models.CharField(max_length=100, blank=True, default="")
    prompt = models.JSONField(null=True)
    draft = models.TextField(blank=True, default="")
    finish_reason = models.CharField(max_length=20, blank=True, default="")
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    tokens_cached = models.PositiveIntegerField(default=0, db_default=0, help_text="Of tokens_in: read from a cache.")
    calls = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="Calls to models.")
    cost = models.DecimalField(
        max_digits=14, decimal_places=8, null=True, help_text="US dollars, by the prices at the time. Null: unknown."
    )
    first_token_ms = models.PositiveIntegerField(null=True, help_text="Null: the reply came as a whole.")
    last_token_ms = models.PositiveIntegerField(null=True)
    confidence = models.FloatField(null=True)  # 0 to 1, if it was requested
    tool_calls = models.JSONField(null=True)  # [{"name", "arguments", "answer"}], in their order
    rule = models.CharField(
        max_length=20, blank=True, default="", db_default=""
    )  # the rule that the answered message matched
    code = models.CharField(max_length=40, blank=True, default="")
    reason = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        db_table = "conversation_turns"
        ordering = ["started_at"]
        constraints = [
            models.UniqueConstraint(
                name="one_running_turn", fields=["client", "conversation"], condition=models.Q(status="running")
            ),
            models.CheckConstraint(
                name="turn_status_known",
                condition=models.Q(status__in=["running", "committed", "overtaken", "dropped", "failed", "abandoned"]),
            ),
        ]
        indexes = [
            models.Index(name="turns_of_conversation", fields=["client", "conversation"]),
            models.Index(name="turns_of_chunk", fields=["client", "chunk"]),
            # Used by the dispatcher's poll for the copilot.
            models.Index(
                name="streamed_turns_running",
                fields=["lease_until"],
                condition=models.Q(status="running", streamed=True),
            ),
            # Used by the dispatcher's look at the turns that wait for a callback.
            models.Index(
                name="turns_waiting",
                fields=["waiting_until"],
                condition=models.Q(status="running", waiting_until__isnull=False),
            ),
            # Used by the dashboard: recent failures.
            models.Index(name="turns_failed", fields=["ended_at"], condition=models.Q(status="failed")),
        ]

    def __str__(self) -> str:
        return f"{self.status} turn"
