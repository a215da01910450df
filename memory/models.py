"""Global memory: what ended sessions left. Keyed by the ids of whoever keeps sessions, without foreign keys to them."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Func
from django.db.models.functions import Now

from memory.languages import DEFAULT, KNOWN
from memory.records import PastSession, SessionRecord, TranscriptEntry


class MemoryQuerySet(models.QuerySet["Memory"]):
    """The questions asked of memory."""

    def of(self, client_id: UUID) -> Self:
        """Those of one client."""
        return self.filter(client_id=client_id)

    def plain(self) -> Self:
        """Without the index of words, which nobody reads."""
        return self.defer("document")


class Memory(models.Model):
    """What is remembered of one ended session: its final summary and its transcript.

    written (no summary yet) ──► summarised ──► remembered (every store that is configured has it)
                                      ▲              │
                                      └── rewritten ─┘  (its text changed: a correction, a redaction)

    `document` holds the words of summary and transcript as memory/words.py cuts them, without endings in `language`,
    and words that no text can hold, for the client, the language and when it ended: see memory/stores/database.py.
    """

    class SummaryKind(models.TextChoices):
        """Who wrote the summary."""

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
            # Used by search: by words, and by pairs of words where they are asked for in a row.
            GinIndex("document", Func("document", function="pairs_of_words"), name="memories_by_words"),
            # Used by search: which languages a client has.
            models.Index(name="memories_by_language", fields=["client_id", "language"]),
            # Used at the opening of a session: the contact's last summaries.
            models.Index(name="memories_of_contact", fields=["client_id", "contact_id", "-ended_at"]),
        ]

    def __str__(self) -> str:
        return str(self.conversation_id)

    def entries(self) -> tuple[TranscriptEntry, ...]:
        """The transcript as plain values, in its order."""
        return tuple(TranscriptEntry.from_json(data) for data in self.transcript)

    def as_record(self) -> SessionRecord:
        """What a store is told of it."""
        return SessionRecord(
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

    def as_past_session(self) -> PastSession:
        """What a later session may know of it."""
        return PastSession(
            conversation_id=self.conversation_id,
            channel=self.channel,
            started_at=self.started_at,
            ended_at=self.ended_at,
            summary=self.summary,
            summary_kind=self.summary_kind,
        )


class MemoryVectorQuerySet(models.QuerySet["MemoryVector"]):
    """The questions asked of the ledger."""

    def of_conversation(self, conversation_id: UUID) -> Self:
        """Those of one session, in the order of their parts."""
        return self.filter(conversation_id=conversation_id).order_by("part")


class MemoryVector(models.Model):
    """One vector that is, or may be, at Pinecone. Nothing is there that has no row here.

    noted (upserting_until) ──► there (upserted_at) ──► deleted there, then here
           │    ▲                      │
           │    └── its text changed ──┘
           └──► an upsert that never answered: it may be there; written again, or deleted when the time is over

    `part` 0 is the summary; the others are passages of the transcript, whose entries have the positions `first` to
    `last`. `digest` is of everything that was sent, so that what is there already is not sent again.
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
            # Used by remembering and forgetting: all of a session.
            models.UniqueConstraint(name="one_part_of_a_memory_once", fields=["conversation_id", "part"]),
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
    """One going over all of memory: every session written anew into a store, or every vector taken out of Pinecone.

    It goes along the ids: `after` is the last that is done with, so that what broke off is resumed there. `host` and
    `model` say for which index and embeddings: with others it is another rebuild.
    """

    class Kind(models.TextChoices):
        """What is done to each session."""

        DATABASE = "database"
        PINECONE = "pinecone"
        EMPTY_PINECONE = "empty"

    kind = models.CharField(max_length=10, choices=Kind)
    host = models.CharField(max_length=500, blank=True, default="")
    model = models.CharField(max_length=100, blank=True, default="")
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
