"""The progress of rolling summaries, which keep long conversations within their prompt."""

from __future__ import annotations

from django.db import models

from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientOneToOne


class RollingSummary(OfClient):
    """The progress of `conversations.summary`, which covers the entries before the prompt's window.

    up to date (due_at null) ──► due: entries up to `wanted` left the window ──► covered, batch by batch, up to `upto`
              ▲                                                                             │
              └─────────────────────────────────────────────────────────────────────────────┘

    `version` counts the changes of the summary, by the model, by staff and by the restart after a redaction. A claim of
    a due row moves `due_at` into the future: that is its lease.
    """

    conversation = SameClientOneToOne(
        Conversation,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        related_name="rolling_summary",
        db_constraint=False,
    )  # cascades in the database
    upto = models.PositiveIntegerField(default=0, help_text="The position of the newest entry that it covers.")
    wanted = models.PositiveIntegerField(default=0, help_text="The position up to which it should.")
    version = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Begun since the last that succeeded.")
    error = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        db_table = "conversation_summaries"
        verbose_name_plural = "rolling summaries"
        indexes = [
            # Used by the task that summarises.
            models.Index(name="to_be_summarised", fields=["due_at"], condition=models.Q(due_at__isnull=False))
        ]

    def __str__(self) -> str:
        return f"version {self.version}, up to {self.upto}"
