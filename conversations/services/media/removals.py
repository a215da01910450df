"""Removals: the files whose rows are gone are deleted from the media storage, and looked for afterwards.

A trigger of the database queues them in the transaction that deletes the rows, by whatever way. The sweep and erasures
delete them; both may do so at once, and again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from conversations.models import Attachment, MediaRemoval
from conversations.queue import enqueue
from conversations.services.core import files
from conversations.services.core.backoff import backoff
from conversations.services.core.cluster import exists, of_each
from conversations.services.core.rotation import clients_in

log = logging.getLogger(__name__)

BATCH = 200
YOUNG = timedelta(days=1)


def pending() -> bool:
    """Return whether files are to be deleted, now or later."""
    return exists(MediaRemoval.objects.all())


def remove_due(now: datetime, until: float) -> int:
    """Delete the due files from the storage, client by client, and return of how many attachments.

    until: when to stop, in seconds of `time.monotonic`
    """
    return sum(of_each([(pk, now, until) for pk in clients_in("media_removals")], _remove_due_of))


def _remove_due_of(client_id: UUID, now: datetime, until: float) -> int:
    done, last = 0, 0
    while time.monotonic() < until:
        due = list(
            MediaRemoval.objects.filter(client_id=client_id, due_at__lte=now, pk__gt=last).order_by("pk")[:BATCH]
        )
        if not due:
            break
        done += sum(_remove(removal, now) for removal in due)
        last = due[-1].pk
    return done


def delete_of_chunk(client_id: UUID, chunk_id: int) -> None:
    """Delete the files of the chunk: the rows now, what is stored in the background. Call it in a transaction."""
    if Attachment.objects.filter(client_id=client_id, chunk=chunk_id).delete()[0]:
        enqueue("remove_files")


def remove_of(client_id: UUID, conversation_ids: Sequence[UUID], now: datetime) -> str:
    """Delete the files of attachments of conversations that are gone. Returns the code of the first error, '' if all
    are deleted and the storage, asked for them, has none."""
    theirs = MediaRemoval.objects.filter(client_id=client_id, conversation__in=list(conversation_ids))
    codes = ["being_fetched" if each.due_at > now else "" if _remove(each, now) else each.code for each in theirs]
    return next((code for code in codes if code), "")


def delete_orphans(now: datetime, until: float) -> int:
    """Delete stored files of which no row knows, and return of how many attachments.

    A process that died while it stored a file leaves such a file, and so does a restored backup, whose files may be
    newer than its rows. Files of the last day are left alone: their rows may be just coming.

    until: when to stop, in seconds of `time.monotonic`
    """
    done = 0
    for name in _folders(""):
        if client_id := _as_id(name):
            known = {attachment_id for each in _folders(name) if (attachment_id := _as_id(each))}
            done += sum(_delete_orphan(client_id, each, now) for each in _unknown(client_id, known, until))
    return done


def _unknown(client_id: UUID, found: set[UUID], until: float) -> Iterator[UUID]:
    """Yield those of the stored attachments that have neither a row nor a removal."""
    waiting = sorted(found)
    for start in range(0, len(waiting), BATCH):
        if time.monotonic() > until:
            return
        some = waiting[start : start + BATCH]
        rows = Attachment.objects.filter(client_id=client_id, pk__in=some).values_list("pk", flat=True)
        removals = MediaRemoval.objects.filter(client_id=client_id, attachment__in=some)
        yield from set(some) - {*rows, *removals.values_list("attachment", flat=True)}


def _delete_orphan(client_id: UUID, attachment_id: UUID, now: datetime) -> bool:
    try:
        if now - files.modified_at(client_id, attachment_id) < YOUNG:
            return False
        return files.delete_folder(client_id, attachment_id) > 0
    except Exception as error:  # a storage elsewhere raises what it likes
        log.warning("files not deleted yet: attachment=%s code=%s", attachment_id, type(error).__name__)
        return False


def _folders(inside: str) -> list[str]:
    try:
        return sorted(files.storage().listdir(inside)[0])
    except FileNotFoundError:
        return []


def _as_id(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _remove(removal: MediaRemoval, now: datetime) -> bool:
    """Delete the attachment's files and return whether they are gone."""
    ours = MediaRemoval.objects.filter(client_id=removal.client_id, pk=removal.pk)
    try:
        files.delete_folder(removal.client_id, removal.attachment)
        code = "" if files.is_empty(removal.client_id, removal.attachment) else "still_there"
    except Exception as error:  # a storage elsewhere raises what it likes
        code = type(error).__name__
    if not code:
        ours.delete()
        return True
    removal.code, tries = code[:40], min(removal.tries + 1, 1_000)
    ours.update(code=removal.code, tries=tries, due_at=now + backoff(tries))
    log.warning("files not deleted yet: attachment=%s code=%s", removal.attachment, code)
    return False
