"""The content of a message: its text, its file in the channel's form, or a link where the channel takes none."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from django.utils.translation import gettext_noop

from channels_out.contract import Adapter, OutboundFile
from conversations.models import Attachment, Conversation, Message
from conversations.services.core import files
from conversations.services.delivery import reply_window

NOT_THERE = gettext_noop("The file is not there.")
OUTSIDE_WINDOW = gettext_noop("The person last wrote too long ago: the channel takes no file until they write again.")


def ready_file(message: Message, conversation: Conversation) -> Attachment | None:
    """Return the file that the message sends; None if it sends none, or it is not there (any more)."""
    if message.attachment_id is None:
        return None
    theirs = Attachment.objects.filter(client_id=conversation.client_id, conversation=conversation)
    return theirs.filter(pk=message.attachment_id, state=Attachment.State.READY).first()


def why_not(message: Message, file: Attachment | None, adapter: Adapter, now: datetime) -> str:
    """Return why the message's file cannot be sent at `now`, as a sentence; '' if it can, or there is none to send."""
    if message.attachment_id is None:
        return ""
    if file is None:
        return NOT_THERE
    return "" if reply_window.is_open(message, adapter, now) else OUTSIDE_WINDOW


def what_to_send(message: Message, row: Attachment | None, adapter: Adapter) -> dict[str, Any]:
    """Return the fields `text` and, for a file that the channel takes, `file` of an OutboundMessage."""
    if row is None or row.size is None:
        return {"text": message.text}
    name = row.name or row.kind
    form = adapter.form_of_file(row.content_type, row.size) if adapter.takes_files_to(message.to_address) else None
    if form is None:
        return {"text": f"{name}: {files.sent_link_to(row.client_id, row.pk)}"}
    file = OutboundFile(
        kind=form,
        content_type=row.content_type,
        name=name,
        size=row.size,
        link=files.link_to(row.client_id, row.pk),
        read=partial(_content, row.file),
    )
    return {"text": name, "file": file}


def _content(name: str) -> bytes:
    return b"".join(files.blocks(name))
