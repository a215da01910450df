"""The outcome of fetching a file, together with what it means for a message of ours that sends it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from channels_out.errors import SendError
from conversations.models import Attachment
from conversations.services.delivery import outbox
from conversations.services.media import fetching

NOT_HAD = "The file could not be fetched from its URL: {sentence}"


def record(wanted: fetching.Fetch, outcome: fetching.Fetched | SendError, now: datetime) -> bool:
    """Record the outcome, and return whether what is said in the file is to be written down next.

    A message that waits for the file is sent now, or fails with it.
    """
    with transaction.atomic():
        if isinstance(outcome, SendError):
            if fetching.record_failed(wanted, outcome, now) and wanted.is_ours:
                reason = NOT_HAD.format(sentence=outcome)
                outbox.fail_file(wanted.client_id, _conversation_of(wanted), wanted.attachment_id, reason, now)
            return False
        goes_on = fetching.record_fetched(wanted, outcome, now)
        if wanted.is_ours:
            outbox.release_file(wanted.client_id, _conversation_of(wanted), wanted.attachment_id, now)
        return goes_on


def _conversation_of(wanted: fetching.Fetch) -> UUID:
    """Return the conversation as of now: it may have been merged into another one meanwhile."""
    found = Attachment.objects.filter(client_id=wanted.client_id, pk=wanted.attachment_id)
    return found.values_list("conversation_id", flat=True).first() or UUID(int=0)
