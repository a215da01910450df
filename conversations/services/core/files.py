"""The media storage: where the files of attachments are, and links to them that run out.

An attachment's files are in a folder of its own, so that all of them are found, whoever wrote them and died:

    <client>/<attachment>/<claim>, and beside it <claim>.small for the thumbnail
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.core.files import File
from django.core.files.storage import Storage, storages

SALT = "convo.media"
THUMBNAIL, SENT = "thumbnail", "sent"  # what a link is to, or for
DAY_SECONDS = 86_400
BLOCK = 64 * 1024


def storage() -> Storage:
    """Return the storage of all files of attachments."""
    return storages["default"]


def folder_of(client_id: UUID, attachment_id: UUID) -> str:
    """Return the folder of the attachment's files."""
    return f"{client_id}/{attachment_id}"


def save(name: str, content: IO[bytes]) -> None:
    """Store the file's content, from its beginning, under the name."""
    content.seek(0)
    storage().save(name, File(content))


def delete_folder(client_id: UUID, attachment_id: UUID) -> int:
    """Delete all files of the attachment and return how many there were. It is safe to repeat.

    Raises what the storage raises: OSError for files.
    """
    folder, store = folder_of(client_id, attachment_id), storage()
    try:
        _, names = store.listdir(folder)
    except FileNotFoundError:
        return 0
    for name in names:
        store.delete(f"{folder}/{name}")
    with suppress(OSError):  # a folder that another process is just writing to
        store.delete(folder)
    return len(names)


def modified_at(client_id: UUID, attachment_id: UUID) -> datetime:
    """Return when the attachment's newest file was stored; long ago for none. Raises what the storage raises."""
    folder, store = folder_of(client_id, attachment_id), storage()
    times = [store.get_modified_time(f"{folder}/{name}") for name in store.listdir(folder)[1]]
    return max(times, default=datetime.min.replace(tzinfo=UTC))


def is_empty(client_id: UUID, attachment_id: UUID) -> bool:
    """Return whether the storage has no file of the attachment."""
    try:
        return not storage().listdir(folder_of(client_id, attachment_id))[1]
    except FileNotFoundError:
        return True


def blocks(name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield the stored file in blocks, `length` bytes from `start` on. Raises FileNotFoundError."""
    with storage().open(name) as file:
        file.seek(start)
        left = length
        while block := file.read(BLOCK if left is None else min(BLOCK, left)):
            left = None if left is None else left - len(block)
            yield block


# --- links ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Linked:
    """The file to which a link leads."""

    client_id: UUID
    attachment_id: UUID
    small: bool


def sent_link_to(client_id: UUID, attachment_id: UUID) -> str:
    """Return a link for a person on a channel that takes no files. It runs out after MEDIA_SENT_LINK_DAYS."""
    return f"{settings.PUBLIC_BASE_URL}/media/{signing.dumps([client_id.hex, attachment_id.hex, SENT], salt=SALT)}"


def link_to(client_id: UUID, attachment_id: UUID, *, small: bool = False) -> str:
    """Return a link to the file, or to its thumbnail, that runs out after MEDIA_LINK_SECONDS."""
    what = [client_id.hex, attachment_id.hex, *([THUMBNAIL] if small else [])]
    return f"{settings.PUBLIC_BASE_URL}/media/{signing.dumps(what, salt=SALT)}"


def read_link(token: str) -> Linked:
    """Return what the last part of a link leads to. Raises BadSignature, or SignatureExpired, which is one."""
    client, attachment, *what = signing.loads(token, salt=SALT, max_age=settings.MEDIA_SENT_LINK_DAYS * DAY_SECONDS)
    if SENT not in what:
        signing.loads(token, salt=SALT, max_age=settings.MEDIA_LINK_SECONDS)
    return Linked(UUID(client), UUID(attachment), THUMBNAIL in what)
