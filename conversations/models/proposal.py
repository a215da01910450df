"""Proposals: replies of an assistant that a colleague sends, edits or discards."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from conversations.models.checks import one_of
from conversations.models.conversation import Conversation
from conversations.models.of_client import OfClient, SameClientKey


class Proposal(OfClient):
    """A reply of an assistant that proposes; no customer sees it before a colleague sends it.

    open ──► sent        a colleague sent it, as it was or edited
      ├────► discarded   a colleague discarded it, took the conversation over, or answered otherwise
      └────► outdated    the person wrote again, and there is a newer one

    `inbound_sequence` is the number of the newest message that it answers. Where the conversation's is higher, the
    proposal is out of date, although it is still `open`: an append of a message writes nothing here.

    `turn_id` names the turn that wrote it, and `chunk_id` what was sent. `metadata` goes into the chunk (its choices).
    `files` are the ids of rows that wait for their chunk, `links` are files at URLs, as URL and name. `ends`: the
    conversation is over once it is sent.
    """

    class State(models.TextChoices):
        """The states of the diagram above."""

        OPEN = "open"
        SENT = "sent"
        DISCARDED = "discarded"
        OUTDATED = "outdated"

    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )  # cascades in the database
    state = models.CharField(max_length=10, choices=State, default=State.OPEN, db_default=State.OPEN)
    text = models.TextField()
    metadata: models.JSONField[Any, Any] = models.JSONField(default=dict, db_default={})
    files: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    links: models.JSONField[Any, Any] = models.JSONField(default=list, db_default=[])
    ends = models.BooleanField(default=False, db_default=False)
    inbound_sequence = models.PositiveIntegerField()
    turn_id = models.UUIDField(null=True)
    chunk_id = models.BigIntegerField(null=True)
    is_edited = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    decided_by_name = models.CharField(max_length=150, blank=True, default="", db_default="")

    class Meta:
        db_table = "desk_proposals"
        ordering = ["-id"]
        constraints = [
            # Used by the inbox: the proposal that waits in a conversation.
            models.UniqueConstraint(
                name="one_open_proposal", fields=["client", "conversation"], condition=models.Q(state="open")
            ),
            models.CheckConstraint(
                name="proposal_state_known",
                condition=one_of("state", ("open", "sent", "discarded", "outdated")),
            ),
            models.CheckConstraint(
                name="proposal_decided_at_some_time",
                condition=models.Q(state="open", decided_at__isnull=True)
                | (~models.Q(state="open") & models.Q(decided_at__isnull=False)),
            ),
        ]
        indexes = [
            # Used by the transcript, and by the deletion of a conversation.
            models.Index(name="proposals_of_conversation", fields=["client", "conversation", "id"]),
            # Used by the list of proposals: a client's newest first.
            models.Index(name="proposals_of_client", fields=["client", "-id"]),
        ]

    def __str__(self) -> str:
        return f"proposal in {self.conversation_id}: {self.state}"
