"""Sending a message of staff or of a program in a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from os import SEEK_END
from typing import IO
from uuid import UUID

from channels_out.choices import Choices
from channels_out.errors import SendError
from conversations.models import Chunk, Client, Conversation, Message, Role
from conversations.services.core import files as media_files
from conversations.services.core import proposals, redaction, tool_requests
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.errors import InvalidError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.delivery import opt_outs, outbox, templates
from conversations.services.delivery.templates import WantedTemplate
from conversations.services.media import arriving, fetching
from conversations.services.media.fetching import Fetch, Fetched
from conversations.services.transitions import takeover
from memory.text import one_line

LONGEST_NAME = 120


def send(
    conversation_id: UUID | str,
    content: str,
    *,
    actor: Actor,
    now: datetime,
    client: Client | None = None,
    choices: Choices | None = None,
    takes_over: bool = False,
    files: Sequence[tuple[str, str]] = (),
    uploaded: Sequence[tuple[Fetch, Fetched]] = (),
) -> tuple[Chunk, list[Message]]:
    """Append an ai chunk to the open conversation and queue it for sending; return the chunk and its messages.

    takes_over: give the conversation to the actor if the assistant has it, so that it does not answer beside them

    A reply that was owed is owed no more, and approved tool calls that were not made yet expire. If staff wrote the
    message, the conversation no longer waits for a person.

    choices: offered below the text, as the channel has them
    content: '' for files alone
    files: the URL and name of each file to send after the text; they are fetched first
    uploaded: files that are in the media storage already

    Raises NotFoundError or ConflictError (`ended`, `opted_out`).
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        opt_outs.check(conversation)
        metadata = {outbox.CHOICES: choices.as_json()} if choices else {}
        if takes_over and conversation.taken_over_at is None:
            takeover.take(conversation, actor, now, holder=actor.name, user_id=actor.user_id)
        names = [*(name for _, name in files), *(place.name for place, _ in uploaded)]
        shown = "\n".join(filter(None, [content, *(f"[file] {name}" for name in names)]))
        [chunk] = write_chunks(conversation, [(Role.AI, shown)], now, author_id=actor.user_id, metadata=metadata)
        messages = _queue(conversation, chunk, content, now, files, uploaded)
        _note_sent(conversation, chunk, actor, now)
    return chunk, messages


def send_template(
    conversation_id: UUID | str, wanted: WantedTemplate, *, actor: Actor, now: datetime, client: Client | None = None
) -> tuple[Chunk, list[Message]]:
    """Send a template in the open conversation; return its chunk, which is the template as it is read, and its message.

    It has the effects of `send`, and may be sent at any time.

    Raises NotFoundError, InvalidError (`template`), or ConflictError (`ended`, `opted_out`, `no_templates`,
    `unknown_template`, `template_refused`, `no_marketing`).
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        opt_outs.check(conversation)
        chunk, messages = templates.say_template(conversation, wanted, now, author_id=actor.user_id)
        _note_sent(conversation, chunk, actor, now)
    return chunk, messages


def _queue(
    conversation: Conversation,
    chunk: Chunk,
    content: str,
    now: datetime,
    files: Sequence[tuple[str, str]],
    uploaded: Sequence[tuple[Fetch, Fetched]],
) -> list[Message]:
    if not files and not uploaded:
        return outbox.queue(conversation, chunk, now)
    where = (conversation.client_id, conversation.pk, chunk.pk)
    rows = arriving.write_ours(*where, files, now) + arriving.write_uploaded(*where, uploaded, now)
    clean = redaction.rules_of(conversation.client).clean
    return outbox.queue(conversation, chunk, now, text=clean(content), files=rows)


def _note_sent(conversation: Conversation, chunk: Chunk, actor: Actor, now: datetime) -> None:
    """Note in the locked conversation that staff or a program answered in the assistant's place."""
    note_answered(conversation)
    proposals.discard_open(conversation, actor, now)
    tool_requests.expire_approved(conversation, now)
    takeover.note_written(conversation, actor, now)
    record(conversation, "sent", actor, chunk_id=chunk.pk)


def send_uploads(
    conversation: Conversation,
    content: str,
    uploads: Sequence[tuple[str, IO[bytes]]],
    *,
    actor: Actor,
    now: datetime,
    choices: Choices | None = None,
) -> tuple[Chunk, list[Message]]:
    """Send the text and the files (name, content), as `send` does, and let the actor have the conversation.

    Nothing is kept of what cannot be sent.

    Raises InvalidError for a file that is empty or too large, and what `send` raises.
    """
    kept: list[tuple[Fetch, Fetched]] = []
    try:
        for name, file in uploads:
            size = file.seek(0, SEEK_END)
            kept.append(
                fetching.keep_upload(conversation.client_id, one_line(name, LONGEST_NAME) or "file", file, size)
            )
        return send(
            conversation.pk,
            content,
            actor=actor,
            now=now,
            client=conversation.client,
            choices=choices,
            takes_over=True,
            uploaded=kept,
        )
    except SendError as error:
        _forget(kept)
        raise InvalidError(str(error), code=error.code) from None
    except Exception:
        _forget(kept)
        raise


def _forget(kept: Sequence[tuple[Fetch, Fetched]]) -> None:
    for place, _ in kept:
        media_files.delete_folder(place.client_id, place.attachment_id)
