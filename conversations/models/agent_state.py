"""The state that an external agent keeps for a conversation by the sync protocol, and its orders."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from conversations.models.choices import Choices
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey, SameClientOneToOne


class Intent(Choices):
    """The subject of the person's messages."""

    MENU = "menu"
    ORDER = "order"
    SUPPORT = "support"
    INFO = "info"
    PAYMENT = "payment"
    DELIVERY = "delivery"
    IDLE = "idle"


FIRST_STEP = "initial"


class AgentState(OfClient):
    """The state that the sync protocol adds to a conversation; a conversation without a row has the defaults.

    It is changed only while the conversation's row is locked, so that no agent overwrites another's change; `version`
    counts the changes. The messages are chunks, and the orders are rows of their own.
    """

    conversation = SameClientOneToOne(
        Conversation,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        related_name="agent_state",
        db_constraint=False,
    )  # cascades in the database
    local_id = models.CharField(max_length=200, blank=True, default="", db_default="")
    bot_id = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="Where it is no assistant of ours."
    )
    intent = models.CharField(max_length=10, choices=Intent, default=Intent.IDLE, db_default=Intent.IDLE)
    step = models.CharField(max_length=200, default=FIRST_STEP, db_default=FIRST_STEP)
    previous_intent = models.CharField(max_length=10, choices=Intent, blank=True, default="", db_default="")
    previous_step = models.CharField(max_length=200, blank=True, default="", db_default="")
    context = models.JSONField(blank=True, default=dict, db_default={})
    current_order_id = models.CharField(max_length=200, blank=True, default="", db_default="")
    version = models.PositiveIntegerField(default=0, db_default=0)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_states"
        constraints = [
            models.CheckConstraint(
                name="state_intents_known",
                condition=models.Q(intent__in=Intent.values) & models.Q(previous_intent__in=["", *Intent.values]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.intent}: {self.step}"


class OrderLink(OfClient):
    """An order that was placed in a conversation; each is linked once."""

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="orders", db_constraint=False, db_index=False
    )  # cascades in the database
    order_id = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "conversation_orders"
        ordering = ["id"]
        constraints = [
            # Used by every read of a conversation's orders.
            models.UniqueConstraint(name="one_order_once", fields=["client", "conversation", "order_id"]),
        ]

    def __str__(self) -> str:
        return self.order_id
