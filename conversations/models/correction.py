"""What staff changed in a transcript, kept beside what was said."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce, Now

from conversations.models.conversation import Chunk


class Correction(models.Model):
    """What a chunk should say instead, or that its text was removed.

    The chunk keeps the original; of several corrections the newest counts. A redaction takes the text away for good,
    from the chunk and from the corrections before it, and is the last word on it.
    """

    class Kind(models.TextChoices):
        """Beside the original, or instead of it."""

        CORRECTION = "correction"
        REDACTION = "redaction"

    chunk = models.ForeignKey(
        Chunk, on_delete=models.DO_NOTHING, related_name="corrections", db_constraint=False
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
                name="one_redaction_per_chunk", fields=["chunk"], condition=models.Q(kind="redaction")
            ),
            models.CheckConstraint(
                name="correction_kind_known", condition=models.Q(kind__in=["correction", "redaction"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} by {self.author_name}"


def corrected_text() -> Coalesce:
    """A chunk's text as it should be read, to annotate chunks with: the newest correction, else what was said."""
    newest = Correction.objects.filter(chunk=models.OuterRef("pk"), kind=Correction.Kind.CORRECTION).order_by("-id")
    return Coalesce(models.Subquery(newest.values("text")[:1]), "content")
