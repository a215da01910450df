"""Bulk jobs: one action on many conversations, in batches, so that locks are short and progress can be seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from conversations.models import Assistant, BulkJob, EndedBy
from conversations.services.core.errors import DomainError, NotFoundError
from conversations.services.core.ledger import Actor
from conversations.services.history import archive
from conversations.services.transitions import assigning, closing

MOST_CONVERSATIONS = 10_000
BATCH = 25
Allowed = Callable[[Sequence[UUID]], Collection[UUID]]


def start_job(
    kind: str, sessions: Sequence[UUID], *, actor: Actor, reason: str = "", assistant: Assistant | None = None
) -> BulkJob:
    """Store a job for the conversations, MOST_CONVERSATIONS at most, and return it; `continue_job` does it.

    The conversations are sorted by id, so that two jobs never wait for each other's locks in a circle.
    """
    return BulkJob.objects.create(
        kind=kind,
        sessions=sorted(sessions)[:MOST_CONVERSATIONS],
        user_id=actor.user_id,
        reason=reason,
        assistant=assistant,
    )


def continue_job(job_id: UUID | str, *, actor: Actor, now: datetime, allowed: Allowed) -> BulkJob:
    """Do the job's next batch and return the job. After the last batch nothing is done.

    allowed: returns those of the conversation ids that the actor may change now; the others count as refused

    Two calls at once do two batches, one after the other. Raises NotFoundError where the actor has no such job.
    """
    with transaction.atomic():
        job = BulkJob.objects.select_for_update(of=("self",)).filter(pk=job_id, user_id=actor.user_id or 0).first()
        if job is None:
            raise NotFoundError(gettext("There is no such job."))
        batch = job.sessions[job.handled : job.handled + BATCH]
        may = set(allowed(batch))
        for conversation_id in batch:
            job.changed += 1 if conversation_id in may and _apply(job, conversation_id, actor, now) else 0
        job.handled += len(batch)
        job.refused = job.handled - job.changed
        job.ended_at = job.ended_at or (now if job.handled == len(job.sessions) else None)
        job.save(update_fields=["handled", "changed", "refused", "ended_at"])
    return job


def _apply(job: BulkJob, conversation_id: UUID, actor: Actor, now: datetime) -> bool:
    """Apply the job's action and return whether the conversation took it; a refusal does not stop the job."""
    try:
        with transaction.atomic():
            if job.assistant:
                assigning.assign(conversation_id, job.assistant, actor=actor)
            elif job.kind == BulkJob.Kind.ARCHIVE:
                archive.archive_one(conversation_id, actor=actor, now=now)
            else:
                closing.close(conversation_id, ended_by=EndedBy.STAFF, actor=actor, now=now, reason=job.reason)
    except DomainError:
        return False
    return True
