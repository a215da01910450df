"""Files of messages: pictures, recordings and documents, and the removals of files whose rows are gone."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from channels_out.kinds import MediaKind
from conversations.models.channel_account import ChannelAccount
from conversations.models.checks import one_of
from conversations.models.choices import Choices
from conversations.models.conversation import Chunk, Conversation
from conversations.models.of_client import OfClient, SameClientKey

LONGEST_NAME = 200


class Attachment(OfClient):
    """One file of a message.

        waiting ──► ready       the file is in the media storage, as `file`, and its picture made small as `thumbnail`
           └──────► failed      it could not be had; `code` says why

    `due_at` is the next time at which somebody works on it: to fetch it, or once it is ready, to write down what is
    said in it. Claiming it moves `due_at` to the end of the claim, so that the work of a process that died is due
    again. NULL: nothing is to be done. `reply_waits_until`: no reply is written before this, unless the work ends.

    What is known of the file before it is there (`kind`, `content_type`, `name`) is what the sender says; afterwards
    `content_type` is what the content says. Files go with their rows, whoever deletes them: a trigger writes a
    MediaRemoval. When a conversation is archived, its chunks go and `position` tells where the file belonged.

    `call` is the tool call whose answer gave the file. It has no chunk until the reply that it goes with is committed.
    """

    class State(Choices):
        """The states of a file; ready and failed are final."""

        WAITING = "waiting"
        READY = "ready"
        FAILED = "failed"

    class Transcription(Choices):
        """The states of the words of a recording."""

        NONE = "", "none is wanted"
        WANTED = "wanted"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = SameClientKey(
        Conversation, on_delete=models.DO_NOTHING, related_name="attachments", db_constraint=False, db_index=False
    )  # cascades in the database
    # Set to NULL when the chunk is archived (services/history/archive.py).
    chunk = SameClientKey(
        Chunk, on_delete=models.DO_NOTHING, related_name="attachments", null=True, db_constraint=False, db_index=False
    )
    position = models.IntegerField(null=True)
    call = models.UUIDField(null=True)
    number = models.PositiveSmallIntegerField()
    channel_account = SameClientKey(
        ChannelAccount, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    kind = models.CharField(max_length=10, choices=[(kind.value, kind.value) for kind in MediaKind])
    state = models.CharField(max_length=10, choices=State, default=State.WAITING, db_default=State.WAITING)
    source = models.TextField(blank=True, default="", db_default="")  # the provider's id of the file, or its URL
    content_type = models.CharField(max_length=200, blank=True, default="", db_default="")
    name = models.CharField(max_length=LONGEST_NAME, blank=True, default="", db_default="")
    size = models.BigIntegerField(null=True)  # bytes
    sha256 = models.CharField(max_length=64, blank=True, default="", db_default="")
    file = models.CharField(max_length=200, blank=True, default="", db_default="")
    thumbnail = models.CharField(max_length=200, blank=True, default="", db_default="")
    width = models.PositiveIntegerField(null=True)  # pixels of the thumbnail
    height = models.PositiveIntegerField(null=True)
    transcription = models.CharField(
        max_length=10, choices=Transcription, blank=True, default="", db_default=Transcription.NONE
    )
    tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    due_at = models.DateTimeField(null=True)
    claim = models.UUIDField(null=True)
    code = models.CharField(max_length=40, blank=True, default="", db_default="")
    reply_waits_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "attachments"
        ordering = ["chunk", "number"]
        constraints = [
            models.CheckConstraint(name="attachment_kind_known", condition=one_of("kind", MediaKind)),
            models.CheckConstraint(
                name="attachment_ready_with_its_file",
                condition=~models.Q(state="ready") | (~models.Q(file="") & models.Q(size__isnull=False)),
            ),
        ]
        indexes = [
            # Used by the dispatcher, for each client in turn: what is to be fetched or written down, longest due first.
            models.Index(name="attachments_due", fields=["client", "due_at"], condition=models.Q(due_at__isnull=False)),
            # Used by the claims of replies: conversations whose reply waits for a file.
            models.Index(
                name="attachments_waited_for",
                fields=["client", "conversation"],
                condition=models.Q(reply_waits_until__isnull=False),
            ),
            # Used by every page of a transcript, and when a chunk is archived.
            models.Index(name="attachments_of_chunk", fields=["client", "chunk"]),
            # Used by the pages of archived conversations, and by the deletion of a conversation.
            models.Index(name="attachments_in_conversation", fields=["client", "conversation", "position"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.state}"

    @property
    def is_spoken(self) -> bool:
        """Return whether somebody may speak in it."""
        return self.kind in (MediaKind.AUDIO, MediaKind.VOICE, MediaKind.VIDEO)


class MediaRemoval(OfClient):
    """The files of an attachment whose row is gone, to be deleted from the media storage.

    A trigger of the database writes it. It has no foreign keys: client and conversation may be gone as well. `due_at`
    is later where a process may still have been fetching the file. Files of simulated phones go in the same way: their
    `conversation` is the simulated account's id.
    """

    attachment = models.UUIDField()
    conversation = models.UUIDField()
    due_at = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    code = models.CharField(max_length=40, blank=True, default="", db_default="")

    class Meta:
        db_table = "media_removals"
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(name="one_removal_of_an_attachment", fields=["client", "attachment"]),
        ]
        indexes = [
            # Used by erasures: what is left of a person's conversations.
            models.Index(name="removals_of_conversation", fields=["client", "conversation"]),
        ]

    def __str__(self) -> str:
        return str(self.attachment)
