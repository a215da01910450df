"""The idempotency keys of clients' requests, with the answers to repeat."""

from __future__ import annotations

from django.db import models

from conversations.models.client import Client
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey


class IdempotencyKey(OfClient):
    """A client's key of one POST, and its answer.

    The row is written in the transaction of the request, so that both are committed or neither. `fingerprint` is the
    SHA-256 of method, path and body, and `answer` the envelope as JSON. `conversation` is the conversation in the
    answer: the row is deleted with it, and a redaction finds the row by it.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.TextField(default="")
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, null=True, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    # Used by the sweep, which deletes expired keys.
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "idempotency_keys"
        constraints = [
            # Used by every POST with a key. Of two simultaneous requests the second waits here for the first.
            models.UniqueConstraint(name="one_answer_per_key", fields=["client", "key"]),
        ]
        indexes = [
            models.Index(
                name="answers_of_conversation",
                fields=["client", "conversation"],
                condition=models.Q(conversation__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.status} until {self.expires_at:%Y-%m-%d %H:%M}"
