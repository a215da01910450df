"""The tables of global memory. They hold ids of conversations, contacts and clients, without foreign keys to them."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Func
from django.db.models.functions import Now

from memory.languages import DEFAULT, KNOWN
from memory.of_client import NamesClient
from memory.records import ConversationRecord, PastConversation, TranscriptEntry


class MemoryQuerySet(models.QuerySet["Memory"]):
    """Queries of remembered conversations."""

    def of(self, client_id: UUID) -> Self:
        """Return the memories of one client."""
        return self.filter(client_id=client_id)

    def plain(self) -> Self:
        """Return the memories without `document`, which only the database reads."""
        return self.defer("document")


class Memory(NamesClient):
    """One ended conversation: its final summary and its transcript.

    written (no summary yet) ──► summarised ──► remembered (every store that is configured has it)
                                      ▲              │
                                      └── rewritten ─┘  (its text changed: a correction, a redaction)

    `document` holds the words of summary and transcript as memory/words.py cuts them, stemmed in `language`, and marker
    words that no text can contain, for the client, the language and the day it ended: see memory/stores/database.py.
    """

    class SummaryKind(models.TextChoices):
        """The writer of the summary."""

        LLM = "llm"
        EXTRACTIVE = "extractive"
        STAFF = "staff"

    conversation_id = models.UUIDField(primary_key=True)
    client_id = models.UUIDField()
    contact_id = models.UUIDField()
    channel = models.CharField(max_length=10)
    # The name of a text search configuration, as text: a column of type regconfig stops pg_upgrade.
    language = models.CharField(max_length=20, default=DEFAULT, db_default=DEFAULT)
    summary = models.TextField(blank=True, default="", db_default="")
    summary_kind = models.CharField(max_length=10, choices=SummaryKind, blank=True, default="", db_default="")
    transcript = models.JSONField(default=list, db_default=[])
    document = SearchVectorField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    written_at = models.DateTimeField(db_default=Now(), editable=False)
    remembered_at = models.DateTimeField(null=True, blank=True)

    objects = MemoryQuerySet.as_manager()

    class Meta:
        db_table = "memories"
        constraints = [
            models.CheckConstraint(name="memory_language_known", condition=models.Q(language__in=KNOWN)),
            models.CheckConstraint(
                name="memory_summary_has_its_kind",
                condition=models.Q(summary="", summary_kind="")
                | (~models.Q(summary="") & models.Q(summary_kind__in=["llm", "extractive", "staff"])),
            ),
            models.CheckConstraint(
                name="memory_remembered_with_a_summary",
                condition=models.Q(remembered_at__isnull=True) | ~models.Q(summary=""),
            ),
        ]
        indexes = [
            # Used by search: by words, and by pairs of words for phrases.
            GinIndex("document", Func("document", function="pairs_of_words"), name="memories_by_words"),
            # Used by search: the languages of a client.
            models.Index(name="memories_by_language", fields=["client_id", "language"]),
            # Used at the opening of a conversation: the contact's last summaries.
            models.Index(name="memories_of_contact", fields=["client_id", "contact_id", "-ended_at"]),
        ]

    def __str__(self) -> str:
        return str(self.conversation_id)

    def entries(self) -> tuple[TranscriptEntry, ...]:
        """Return the transcript as plain values, in its order."""
        return tuple(TranscriptEntry.from_json(data) for data in self.transcript)

    def as_record(self) -> ConversationRecord:
        """Return the memory as the record that a store takes."""
        return ConversationRecord(
            conversation_id=self.conversation_id,
            client_id=self.client_id,
            contact_id=self.contact_id,
            channel=self.channel,
            started_at=self.started_at,
            ended_at=self.ended_at,
            entries=self.entries(),
            summary=self.summary,
            summary_kind=self.summary_kind,
        )

    def as_past_conversation(self) -> PastConversation:
        """Return the part of the memory that a later conversation may know."""
        return PastConversation(
            conversation_id=self.conversation_id,
            channel=self.channel,
            started_at=self.started_at,
            ended_at=self.ended_at,
            summary=self.summary,
            summary_kind=self.summary_kind,
        )


class MemoryVectorQuerySet(models.QuerySet["MemoryVector"]):
    """Queries of the ledger of vectors."""

    def of_conversation(self, client_id: UUID, conversation_id: UUID) -> Self:
        """Return the vectors of one conversation, in the order of their parts."""
        return self.filter(client_id=client_id, conversation_id=conversation_id).order_by("part")


class MemoryVector(NamesClient):
    """One vector that is, or may be, at Pinecone. Every vector at Pinecone has a row here.

    noted (upserting_until) ──► stored (upserted_at) ──► deleted at Pinecone, then here
           │    ▲                      │
           │    └── its text changed ──┘
           └──► an upsert without an answer: the vector may be stored; written again, or deleted after upserting_until

    `part` 0 is the summary; the others are passages of the transcript, from `first_position` to `last_position`.
    `digest` is a hash of everything that was sent, so that a stored vector is not sent again.
    """

    vector_id = models.CharField(max_length=100, primary_key=True)
    conversation_id = models.UUIDField()
    client_id = models.UUIDField()
    host = models.CharField(max_length=500)
    namespace = models.CharField(max_length=100)
    part = models.PositiveIntegerField()
    first_position = models.PositiveIntegerField()
    last_position = models.PositiveIntegerField()
    model = models.CharField(max_length=100)
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    upserting_until = models.DateTimeField(null=True)
    upserted_at = models.DateTimeField(null=True)

    objects = MemoryVectorQuerySet.as_manager()

    class Meta:
        db_table = "memory_vectors"
        constraints = [
            # Used by remembering and forgetting: all vectors of a conversation.
            models.UniqueConstraint(name="one_part_of_a_memory_once", fields=["client_id", "conversation_id", "part"]),
            models.CheckConstraint(
                name="memory_vector_there_or_under_way",
                condition=models.Q(upserted_at__isnull=False) | models.Q(upserting_until__isnull=False),
            ),
            models.CheckConstraint(
                name="memory_vector_positions_in_order",
                condition=models.Q(first_position__lte=models.F("last_position")),
            ),
        ]

    def __str__(self) -> str:
        return self.vector_id


class MemoryRebuild(models.Model):
    """One rebuild: every conversation is written to a store again, or every vector is deleted from Pinecone.

    It goes through the conversations by client and id: `after` (of `after_client`) is the last one that is finished,
    where an interrupted rebuild is resumed. `host` and `model` name the index and the embeddings; for others a new
    rebuild begins.
    """

    class Kind(models.TextChoices):
        """The store that is rebuilt, or `empty` to delete all vectors from Pinecone."""

        DATABASE = "database"
        PINECONE = "pinecone"
        EMPTY_PINECONE = "empty"

    kind = models.CharField(max_length=10, choices=Kind)
    host = models.CharField(max_length=500, blank=True, default="")
    model = models.CharField(max_length=100, blank=True, default="")
    after_client = models.UUIDField(null=True)
    after = models.UUIDField(null=True)
    done = models.PositiveIntegerField(default=0)
    problem = models.CharField(max_length=200, blank=True, default="")
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "memory_rebuilds"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="memory_rebuild_kind_known", condition=models.Q(kind__in=["database", "pinecone", "empty"])
            ),
            models.UniqueConstraint(
                name="one_memory_rebuild_of_a_kind", fields=["kind"], condition=models.Q(ended_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.done} done"
