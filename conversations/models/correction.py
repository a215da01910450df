"""The corrections and redactions of transcripts by staff."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce, Now

from conversations.models.choices import Choices
from conversations.models.conversation import Chunk
from conversations.models.of_client import OfSession, SameClientKey


class Correction(OfSession):
    """The corrected text of a chunk, or the redaction of the chunk.

    A corrected chunk keeps its original text; of several corrections the newest counts. A redaction removes the text
    for good, from the chunk and from earlier corrections; nothing can follow it.
    """

    class Kind(Choices):
        """A correction stands beside the original text; a redaction replaces it."""

        CORRECTION = "correction"
        REDACTION = "redaction"

    chunk = SameClientKey(
        Chunk, on_delete=models.DO_NOTHING, related_name="corrections", db_constraint=False, db_index=False
    )  # cascades in the database
    kind = models.CharField(max_length=10, choices=Kind)
    text = models.TextField(blank=True, default="")
    reason = models.CharField(max_length=200, blank=True, default="")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    author_name = models.CharField(max_length=150, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "chunk_corrections"
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                name="one_redaction_per_chunk", fields=["client", "chunk"], condition=models.Q(kind="redaction")
            ),
            models.CheckConstraint(
                name="correction_kind_known", condition=models.Q(kind__in=["correction", "redaction"])
            ),
        ]
        indexes = [models.Index(name="corrections_of_chunk", fields=["client", "chunk"])]

    def __str__(self) -> str:
        return f"{self.kind} by {self.author_name}"


def corrected_text(client_id: UUID | None = None, among: Collection[UUID] = ()) -> Coalesce:
    """Return the expression of a chunk's current text, for annotations: the newest correction, else the original.

    client_id: the chunks' client, where all are of one; a database of several servers finds the server by it
    among: or else the clients that they may be of, by which it finds the servers
    """
    of_chunk = Correction.objects.filter(client=client_id or models.OuterRef("client"), chunk=models.OuterRef("pk"))
    if among:
        of_chunk = of_chunk.filter(client__in=among)
    newest = of_chunk.filter(kind=Correction.Kind.CORRECTION).order_by("-id")
    return Coalesce(models.Subquery(newest.values("text")[:1]), "content")
