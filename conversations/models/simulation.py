"""The channel simulator's tables: the HTTP exchanges with its simulated providers, and the faults to inject."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.functions import Now

from conversations.models.channel_account import ChannelAccount
from conversations.models.choices import Choices
from conversations.models.of_client import OfClient, SameClientKey


class SimulatedExchange(OfClient):
    """One HTTP request between a simulated provider and Convo, and its answer. Secrets are masked.

    A webhook that the provider holds back has no `sent_at` yet; a repeated webhook is a row of its own. `text` is the
    text of the message, and `message_id` the provider's id of it, for webhooks, sends and receipts alike. `details` has
    the simulator's own data: our message id, the receipt's status, a call's next turn, and as `file` which stored file
    belongs to it. A trigger queues the removal of that file when the last exchange with it is deleted.
    """

    class Kind(Choices):
        """The purpose of the exchange. All but `send` and `question` are webhooks."""

        MESSAGE = "message"
        GESTURE = "gesture"
        RECEIPT = "receipt"
        CALL = "call"
        HANG_UP = "hang_up"
        CONTINUATION = "continuation"
        SEND = "send"
        QUESTION = "question"

    account = SameClientKey(ChannelAccount, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=20, choices=Kind)
    person = models.PositiveSmallIntegerField(default=0)
    message_id = models.TextField(blank=True, default="")
    text = models.TextField(blank=True, default="")
    note = models.CharField(max_length=200, blank=True, default="")
    details: models.JSONField[Any, Any] = models.JSONField(default=dict)

    method = models.CharField(max_length=10)
    address = models.TextField()
    headers: models.JSONField[Any, Any] = models.JSONField(default=dict)
    content_type = models.CharField(max_length=100, blank=True, default="")
    body = models.TextField(blank=True, default="")
    status = models.PositiveSmallIntegerField(null=True)
    answer_headers: models.JSONField[Any, Any] = models.JSONField(default=dict)
    answer = models.TextField(blank=True, default="")
    problem = models.CharField(max_length=200, blank=True, default="")

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    sent_at = models.DateTimeField(null=True)
    answered_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "simulated_exchanges"
        ordering = ["-id"]
        indexes = [
            # Used by the page, and by the deletion of old exchanges: an account's newest first.
            models.Index(name="exchanges_of_account", fields=["client", "account", "-id"])
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.status or ''}".strip()

    @property
    def is_webhook(self) -> bool:
        """Return whether the simulated provider called Convo, and not the other way round."""
        return self.kind not in (self.Kind.SEND, self.Kind.QUESTION)

    @property
    def is_held(self) -> bool:
        """Return whether the webhook is held back, still to be posted."""
        return self.is_webhook and self.sent_at is None


class SimulatedFault(OfClient):
    """A fault in the simulated provider's answer to the next send. Faults are used oldest first, and deleted then."""

    account = SameClientKey(ChannelAccount, on_delete=models.CASCADE, related_name="+", db_index=False)
    misbehaviour = models.CharField(max_length=20)

    class Meta:
        db_table = "simulated_faults"
        ordering = ["id"]
        indexes = [models.Index(name="faults_of_account", fields=["client", "account", "id"])]

    def __str__(self) -> str:
        return self.misbehaviour
