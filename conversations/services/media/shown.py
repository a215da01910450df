"""A message's files as people and programs see them: state, size and name in words, and links that run out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_noop

from channels_out.kinds import MediaKind
from conversations.models import Attachment, Conversation
from conversations.services.core import files
from conversations.services.core.detail_sql import Detail
from conversations.services.media import content
from conversations.services.media.fetching import MEGABYTE
from memory.text import one_line

S = Attachment.State
REASONS = {
    "too_large": gettext_noop("it is larger than allowed"),
    "gone": gettext_noop("the provider does not have it any more"),
    "empty": gettext_noop("it is empty"),
    "private_address": gettext_noop("its address is not public"),
    "no_account": gettext_noop("the account that it came to is gone"),
    "account_broken": gettext_noop("the provider refuses the account"),
    "exhausted": gettext_noop("the attempt broke off each time"),
}


WORDS = {
    MediaKind.IMAGE: gettext_noop("picture"),
    MediaKind.STICKER: gettext_noop("sticker"),
    MediaKind.AUDIO: gettext_noop("recording"),
    MediaKind.VOICE: gettext_noop("voice note"),
    MediaKind.VIDEO: gettext_noop("video"),
    MediaKind.DOCUMENT: gettext_noop("file"),
}


@dataclass(frozen=True, slots=True)
class ShownFile:
    """One file of a message. `link` and `thumbnail` are '' while there is nothing behind them."""

    row: Attachment
    link: str = ""
    thumbnail: str = ""

    @property
    def name(self) -> str:
        """Return the name by which it is saved: the sender's on one line, or its kind, with an ending that is true."""
        return safe_name(self.row)

    @property
    def what(self) -> str:
        """Return the word for what it is: gettext_noop("picture"), gettext_noop("voice note")."""
        return WORDS[MediaKind(self.row.kind)]

    @property
    def size(self) -> str:
        """Return the size in words: "1.2 MB"; '' if it is not known."""
        return size_in_words(self.row.size)

    @property
    def problem(self) -> str:
        """Return why it could not be had; '' if it could, or is still being fetched."""
        if self.row.state != S.FAILED:
            return ""
        return REASONS.get(self.row.code, gettext_noop("the provider did not give it"))

    @property
    def is_picture(self) -> bool:
        """Return whether it is shown as a picture."""
        return bool(self.row.thumbnail)

    @property
    def player(self) -> str:
        """Return the element that plays it: "audio" or gettext_noop("video"); '' if none does."""
        family = self.row.content_type.partition("/")[0]
        return family if family in ("audio", gettext_noop("video")) and self.row.content_type in content.SHOWN else ""


def of_chunks(client_id: UUID, chunk_ids: Sequence[int]) -> dict[int, list[Attachment]]:
    """Return the files of the client's chunks, by chunk, in their order."""
    found: dict[int, list[Attachment]] = defaultdict(list)
    for each in Attachment.objects.filter(client_id=client_id, chunk__in=chunk_ids).order_by("chunk_id", "number"):
        found[each.chunk_id or 0].append(each)
    return found


def of_archived(conversation: Conversation, positions: Sequence[int]) -> dict[int, list[Attachment]]:
    """Return the files of an archived conversation's messages, by position, in their order."""
    found: dict[int, list[Attachment]] = defaultdict(list)
    theirs = Attachment.objects.filter(
        client_id=conversation.client_id, conversation=conversation, chunk__isnull=True, position__in=positions
    )
    for each in theirs.order_by("position", "number"):
        found[each.position or 0].append(each)
    return found


def with_links(row: Attachment) -> ShownFile:
    """Return the file with links that run out after MEDIA_LINK_SECONDS."""
    if row.state != S.READY:
        return ShownFile(row)
    small = files.link_to(row.client_id, row.pk, small=True) if row.thumbnail else ""
    return ShownFile(row, files.link_to(row.client_id, row.pk), small)


def as_json(file: ShownFile) -> dict[str, Any]:
    """Return the file as programs read it."""
    row = file.row
    return {
        "id": str(row.pk),
        "type": row.kind,
        "state": row.state,
        "content_type": row.content_type,
        "name": file.name,
        "size": row.size,
        "sha256": row.sha256,
        "link": file.link,
        "thumbnail": file.thumbnail,
        "problem": file.problem,
    }


def whole(detail: Detail) -> str:
    """Return the conversation as JSON text, with its chunks' files and links that run out."""
    if not detail.files:
        return detail.json
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in json.loads(detail.files):
        chunk_id, pk = each.pop("chunk_id"), UUID(each.pop("id"))
        found[chunk_id].append(as_json(with_links(Attachment(id=pk, client_id=detail.client_id, **each))))
    conversation = json.loads(detail.json)
    for chunk in conversation["chunks"]:
        chunk["attachments"] = found.get(chunk["id"], [])
    return json.dumps(conversation, ensure_ascii=False)


def find(client_id: UUID, attachment_id: UUID) -> Attachment | None:
    """Return the client's file that is ready to be read; None for any other."""
    return Attachment.objects.filter(client_id=client_id, pk=attachment_id, state=S.READY).first()


def safe_name(row: Attachment) -> str:
    """Return a name for saving the file: on one line, without folders, with the ending of what it is."""
    ending = content.ENDINGS.get(row.content_type, "")
    stem = one_line(row.name.replace("/", "_").replace("\\", "_"), 120).strip(". ") or row.kind
    if not row.content_type or stem.lower().endswith(ending or "\0"):
        return stem
    same = {".jpg": (".jpeg",), ".3gp": (".3gpp",), ".txt": (".csv", ".md", ".log", ".json")}
    if stem.lower().endswith(same.get(ending, ())):
        return stem
    # A type that is not known keeps its ending: it is saved, never opened here.
    return stem + ending


def in_words(row: Attachment) -> str:
    """Return the file as a phrase for documents: "picture house.jpg, 1.2 MB", or why it is not there."""
    file = ShownFile(row)
    known = f"{file.what} {file.name}"
    return f"{known}, {file.problem or file.size or 'not fetched yet'}"


def size_in_words(size: int | None) -> str:
    """Return the number of bytes in words; '' for None."""
    if size is None:
        return ""
    if size >= MEGABYTE:
        return f"{size / MEGABYTE:.1f} MB"
    return f"{round(size / 1_000)} kB" if size >= 1_000 else f"{size} bytes"
