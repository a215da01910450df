"""The answers to a provider of phone calls."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from channels_out.calls import NextAction
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey


class CallAnswer(OfClient):
    """The answer to one request about a call; a repeated request gets the same answer.

    `key` names the request within its call. The spoken text is not stored here: it is in the chunks from
    `first_position` to `last_position` (0: none) and in `phrase`, a key of services/voice/spoken.py. So the highest
    last position of all answers is how far the caller has heard the conversation. `turn`, `again` and `waited` come
    back with the provider's next request.
    """

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="call_answers", db_constraint=False, db_index=False
    )  # cascades in the database
    key = models.CharField(max_length=40)
    then = models.CharField(max_length=10, choices=[(then.value, then.value) for then in NextAction])
    phrase = models.CharField(max_length=20, blank=True, default="")
    first_position = models.PositiveIntegerField(default=0)
    last_position = models.PositiveIntegerField(default=0)
    number = models.CharField(max_length=16, blank=True, default="", db_default="")  # that the caller is connected to
    turn = models.PositiveSmallIntegerField(default=0)
    again = models.PositiveSmallIntegerField(default=0)
    waited = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_call_answers"
        constraints = [
            # Used by every request about a call.
            models.UniqueConstraint(name="one_answer_per_request", fields=["client", "conversation", "key"]),
            models.CheckConstraint(
                name="call_answer_then_known", condition=models.Q(then__in=[then.value for then in NextAction])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.then}"
