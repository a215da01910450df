"""Files that go with an assistant's reply: of tools' answers, and those that a client's own agent names.

    the tool answers ─► keep (media storage) ─► note (rows, with the answer) ─► of_reply ─► place (its chunk)

A file of a tool's answer is a row of the conversation from the moment on that its answer is noted, so that an erasure
reaches it; it has no chunk yet. The reply that was given the answer takes it with it when it is committed. A draft that
is dropped leaves it to the next one, as it does with the answer.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from channels_out.errors import SendError
from channels_out.given_files import MOST_FILES, GivenFile
from channels_out.kinds import Channel
from channels_out.tools import Outcome, ToolResult
from conversations.engines.contract import Reply
from conversations.models import Attachment, Chunk, Conversation, ToolCall, Turn
from conversations.services.core import files, redaction
from conversations.services.media import arriving, fetching
from conversations.services.media.fetching import Fetch, Fetched

GIVEN = "[Attached to your reply, and sent right after its text: {names}. Do not write a link to it.]"
REFUSED = "[Not attached: {reasons}]"
NOT_IN_CALLS = "nothing can be sent in a phone call"
TOO_MANY = f"at most {MOST_FILES} files are possible in a reply"


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The files of a tool's answer.

    uploaded    in the media storage; their rows are yet to be written
    linked      at URLs, as URL and name
    refused     why others cannot be sent, as phrases
    """

    uploaded: tuple[tuple[Fetch, Fetched], ...] = ()
    linked: tuple[tuple[str, str], ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyFiles:
    """The files of one reply: rows that wait for their chunk, and files at URLs."""

    rows: tuple[Attachment, ...] = ()
    linked: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.linked)

    def shown_with(self, text: str) -> str:
        """Return the text with a line for each file, as the transcript has it."""
        names = [*(row.name for row in self.rows), *(name for _, name in self.linked)]
        return "\n".join(filter(None, [text, *(f"[file] {name}" for name in names)]))

    def place(self, conversation: Conversation, chunk: Chunk, now: datetime) -> list[Attachment]:
        """Give the files to the reply's chunk and return their rows. Call it in the transaction that wrote it."""
        for number, row in enumerate(self.rows):
            ours = Attachment.objects.filter(client_id=row.client_id, pk=row.pk)
            ours.update(chunk=chunk, number=number)
        if not self.linked:
            return list(self.rows)
        where = (conversation.client_id, conversation.pk, chunk.pk)
        return [*self.rows, *arriving.write_ours(*where, self.linked, now, first=len(self.rows))]


NO_FILES, NOTHING_KEPT = ReplyFiles(), KeptFiles()


def keep(client_id: UUID, result: ToolResult) -> KeptFiles:
    """Keep the contents of a tool's answer in the media storage, which may be waited for. Use no transaction."""
    if result.outcome != Outcome.ANSWERED or not (result.files or result.refused):
        return NOTHING_KEPT
    uploaded, refused = [], [*result.refused]
    for given in result.files[:MOST_FILES]:
        if not given.url:
            try:
                uploaded.append(_keep_one(client_id, given))
            except SendError as error:
                refused.append(f"{given.name}: {error}")
    linked = tuple((given.url, given.name) for given in result.files[:MOST_FILES] if given.url)
    refused += [f"{given.name}: {TOO_MANY}" for given in result.files[MOST_FILES:]]
    return KeptFiles(tuple(uploaded), linked, tuple(refused))


def _keep_one(client_id: UUID, given: GivenFile) -> tuple[Fetch, Fetched]:
    """Keep one file. Raises SendError."""
    try:
        return fetching.keep_upload(client_id, given.name, io.BytesIO(given.content), len(given.content))
    except SendError:
        raise
    except Exception as error:  # a storage elsewhere raises what it likes
        raise SendError(f"It could not be kept ({type(error).__name__}).", code="not_kept") from None


def note(conversation: Conversation, call: ToolCall, kept: KeptFiles, now: datetime) -> str:
    """Write the rows of the files in the locked conversation, and return what the model is told of them, '' if nothing.

    Nothing of it is sent before a reply that was given the call's answer is committed.
    """
    if not (kept.uploaded or kept.linked or kept.refused):
        return ""
    room, refused = _room(conversation), [*kept.refused]
    if conversation.channel == Channel.VOICE:
        room, refused = 0, [NOT_IN_CALLS]
    clean = redaction.rules_of(conversation.client).clean
    uploaded = kept.uploaded[:room]
    linked = [(url, clean(name)) for url, name in kept.linked[: room - len(uploaded)]]
    if room and len(uploaded) + len(linked) < len(kept.uploaded) + len(kept.linked):
        refused.append(TOO_MANY)
    where = (conversation.client_id, conversation.pk, None)
    rows = arriving.write_uploaded(*where, uploaded, now, call=call.pk)
    rows += arriving.write_ours(*where, linked, now, first=len(rows), call=call.pk)
    told = [GIVEN.format(names=", ".join(row.name for row in rows))] if rows else []
    if refused:
        told.append(REFUSED.format(reasons="; ".join(reason.rstrip(".") for reason in map(clean, refused))))
    return "\n".join(told)


def _room(conversation: Conversation) -> int:
    """Return how many files the next reply may have yet."""
    open_calls = ToolCall.objects.filter(conversation=conversation, is_open=True, key__isnull=False)
    return max(MOST_FILES - _without_chunk(conversation).filter(call__in=open_calls.values("pk")).count(), 0)


def _without_chunk(conversation: Conversation) -> QuerySet[Attachment]:
    ours = Attachment.objects.filter(client_id=conversation.client_id, conversation=conversation)
    return ours.filter(chunk__isnull=True, position__isnull=True)


def forget_unwritten(kept: KeptFiles) -> None:
    """Delete from the storage what has no row: the call's answer came too late to be noted."""
    for place, _ in kept.uploaded:
        if not Attachment.objects.filter(client_id=place.client_id, pk=place.attachment_id).exists():
            files.delete_folder(place.client_id, place.attachment_id)


def of_reply(conversation: Conversation, turn: Turn, reply: Reply, *, has_calls: bool) -> ReplyFiles:
    """Return the files that go with the reply, in the locked conversation. In a phone call there are none.

    The rows are locked: a fetch that ends meanwhile finds the message that waits for it.
    """
    rows: list[Attachment] = []
    if has_calls:
        told = ToolCall.objects.filter(conversation=conversation, is_open=True, given_to=turn.pk)
        answered = told.filter(status=ToolCall.Status.ANSWERED).order_by("created_at").values_list("pk", flat=True)
        calls: list[UUID | None] = list(answered)
        found = _without_chunk(conversation).filter(call__in=calls).select_for_update(of=("self",))
        rows = sorted(found, key=lambda row: (calls.index(row.call), row.number)) if calls else []
    linked = () if conversation.channel == Channel.VOICE else tuple((each.url, each.name) for each in reply.files)
    return ReplyFiles(tuple(rows), linked)


def links_of(rows: Sequence[Attachment]) -> str:
    """Return a line with a link that runs out for each file, for a page that shows no files."""
    return "\n".join(f"{row.name}: {files.sent_link_to(row.client_id, row.pk)}" for row in rows)
