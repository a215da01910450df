"""The pictures and documents that a model is shown with a prompt, if its assistant's switch says so.

They are the newest few of the person's recent messages. A note before each of these messages says which one is its.
They are read from the media storage on the engine's thread, pictures at a model's size and without metadata.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

from conversations.models import Conversation
from conversations.services.core import files
from conversations.services.core.sql import rows
from conversations.services.media import content
from memory.language_models import capabilities
from memory.language_models.contract import ModelAccess, Picture

log = logging.getLogger(__name__)

MOST_FILES = 4
MOST_MESSAGES = 20  # so far back
LARGEST_DOCUMENT = 10_000_000  # bytes
PDF = "application/pdf"
TYPES = [*content.PICTURES.values(), PDF]

# Of a message that the person deleted nothing is shown any more.
_NEWEST = """
    SELECT k.position, a.file, a.content_type
    FROM attachments a JOIN conversation_chunks k ON k.client_id = a.client_id AND k.id = a.chunk_id
    WHERE a.client_id = $1 AND a.conversation_id = $2 AND a.state = 'ready' AND k.role IN ('user', 'voice')
      AND k.position > $3 AND a.content_type = ANY ($4::text[]) AND (a.content_type <> $5 OR a.size <= $6)
      AND NOT EXISTS (
        SELECT FROM conversation_activities d
        WHERE d.client_id = k.client_id AND d.chunk_id = k.id AND d.kind = 'deletion')
    ORDER BY k.position DESC, a.number DESC LIMIT $7"""


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A stored file that the model is shown, with the position of its message."""

    position: int
    file: str
    content_type: str


@dataclass(frozen=True, slots=True)
class SeenFiles:
    """The files that a model is shown, oldest first."""

    files: tuple[SeenFile, ...] = ()

    @property
    def notes(self) -> Mapping[int, Sequence[str]]:
        """Return the notes that say which file belongs to which message, by the messages' positions."""
        found: dict[int, list[str]] = defaultdict(list)
        for number, each in enumerate(self.files, start=1):
            what = "document" if each.content_type == PDF else "picture"
            found[each.position].append(f"this message came with file {number} of those shown at the end, a {what}")
        return found

    def read(self) -> tuple[Picture, ...]:
        """Return the files for the model. One that cannot be read (any more) is left out."""
        return tuple(picture for each in self.files if (picture := _read(each)))


NOTHING = SeenFiles()


def choose(conversation: Conversation, models: Sequence[ModelAccess]) -> SeenFiles:
    """Return what the model is to see; nothing, without a query, unless the assistant's switch is on."""
    assistant = conversation.assistant
    if not (assistant and assistant.sees_files and models) or models[0].known.get(capabilities.PICTURES) is False:
        return NOTHING
    after = max(conversation.last_position - MOST_MESSAGES, conversation.history_from or 0)
    where = (conversation.client_id, conversation.pk, after)
    found = rows(_NEWEST, *where, TYPES, PDF, LARGEST_DOCUMENT, MOST_FILES)
    return SeenFiles(tuple(SeenFile(*each) for each in reversed(found)))


def _read(seen: SeenFile) -> Picture | None:
    try:
        with SpooledTemporaryFile(max_size=LARGEST_DOCUMENT) as file:
            for block in files.blocks(seen.file):
                file.write(block)
            if seen.content_type == PDF:
                file.seek(0)
                return Picture(PDF, file.read())
            data = content.for_model(file)
    except Exception as error:  # a storage elsewhere raises what it likes
        log.warning("file not shown to the model: error=%s", type(error).__name__)
        return None
    return Picture("image/jpeg", data) if data else None
