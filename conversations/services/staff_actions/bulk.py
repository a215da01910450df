"""Doing one thing to many sessions: a batch at a time, so that nothing is held for long and progress can be seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from conversations.models import Assistant, BulkJob, EndedBy
from conversations.services.core.errors import DomainError, NotFoundError
from conversations.services.core.ledger import Actor
from conversations.services.history import archive
from conversations.services.transitions import assigning, closing

MOST = 10_000
BATCH = 25
Allowed = Callable[[Sequence[UUID]], Collection[UUID]]


def start(
    kind: str, sessions: Sequence[UUID], *, actor: Actor, reason: str = "", assistant: Assistant | None = None
) -> BulkJob:
    """What is to be done is written down; nothing is done yet. The sessions are taken in the order of their ids, so
    that two jobs never wait for each other."""
    return BulkJob.objects.create(
        kind=kind, sessions=sorted(sessions)[:MOST], user_id=actor.user_id, reason=reason, assistant=assistant
    )


def go_on(job_id: UUID | str, *, actor: Actor, now: datetime, allowed: Allowed) -> BulkJob:
    """The next batch is done. Calling it twice at once does two batches, one after the other; after the end, nothing.

    `allowed` says which of some sessions the actor may (still) change; the others count as refused.
    Raises NotFoundError where the actor has no such job.
    """
    with transaction.atomic():
        job = BulkJob.objects.select_for_update(of=("self",)).filter(pk=job_id, user_id=actor.user_id or 0).first()
        if job is None:
            raise NotFoundError("There is no such job.")
        batch = job.sessions[job.handled : job.handled + BATCH]
        may = set(allowed(batch))
        for session in batch:
            job.changed += 1 if session in may and _done(job, session, actor, now) else 0
        job.handled += len(batch)
        job.refused = job.handled - job.changed
        job.ended_at = job.ended_at or (now if job.handled == len(job.sessions) else None)
        job.save(update_fields=["handled", "changed", "refused", "ended_at"])
    return job


def _done(job: BulkJob, session: UUID, actor: Actor, now: datetime) -> bool:
    """Whether the session is what the job makes of it; a session that refuses stops nothing."""
    try:
        with transaction.atomic():
            if job.assistant:
                assigning.assign(session, job.assistant, actor=actor)
            elif job.kind == BulkJob.Kind.ARCHIVE:
                archive.archive_one(session, actor=actor, now=now)
            else:
                closing.close(session, ended_by=EndedBy.STAFF, actor=actor, now=now, reason=job.reason)
    except DomainError:
        return False
    return True
