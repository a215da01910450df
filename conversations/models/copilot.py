"""The copilot's own tables: the pieces of a reply that is being written, and users' feedback on replies."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.choices import Choices
from conversations.models.conversation import Chunk, Conversation
from conversations.models.of_client import OfSession, SameClientKey, SameClientOneToOne
from conversations.models.turn import Turn


class Delta(OfSession):
    """A piece of the reply that a streamed turn is writing; `start` counts the characters before it.

    Any process can read the pieces while the reply is written. They are deleted when the turn ends, when the chunk has
    the whole text; those of an earlier attempt are deleted when the next begins.
    """

    pk = models.CompositePrimaryKey("turn_id", "attempt", "start")
    turn = SameClientKey(
        Turn, on_delete=models.DO_NOTHING, related_name="deltas", db_constraint=False, db_index=False
    )  # cascades in the database
    attempt = models.PositiveSmallIntegerField()
    start = models.PositiveIntegerField()
    text = models.TextField()

    class Meta:
        db_table = "copilot_deltas"

    def __str__(self) -> str:
        return f"{len(self.text)} characters from {self.start} on"


class Feedback(OfSession):
    """A signed-in user's feedback on a reply: a rating, and a note if they like. New feedback replaces the old."""

    class Rating(Choices):
        """Thumbs up or down."""

        UP = "up"
        DOWN = "down"

    chunk = SameClientOneToOne(
        Chunk, on_delete=models.DO_NOTHING, primary_key=True, related_name="feedback", db_constraint=False
    )  # goes with the conversation, or with its chunks when it is archived
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="feedback", db_constraint=False, db_index=False
    )  # cascades in the database
    rating = models.CharField(max_length=4, choices=Rating)
    note = models.TextField(blank=True, default="", db_default="")
    given_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "copilot_feedback"
        ordering = ["-given_at"]
        verbose_name_plural = "feedback"
        indexes = [
            # Used by the back office: the newest first.
            models.Index(name="feedback_by_age", fields=["-given_at"]),
            models.Index(name="feedback_of_conversation", fields=["client", "conversation"]),
        ]
        constraints = [models.CheckConstraint(name="rating_known", condition=models.Q(rating__in=["up", "down"]))]

    def __str__(self) -> str:
        return f"thumbs {self.rating}"
