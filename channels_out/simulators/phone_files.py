"""The files on a simulated person's phone, and what its app says that they are.

A phone's app tells a file's type by the ending of its name and does not look into it. So a file that lies about its
type can be played: give it another ending.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import PurePosixPath

from channels_out.kinds import MediaKind

_OFFICE = "application/vnd.openxmlformats-officedocument"
TYPES: dict[str, tuple[MediaKind, str]] = {
    # ending: how the app sends such a file, and as which type
    ".jpg": (MediaKind.IMAGE, "image/jpeg"),
    ".jpeg": (MediaKind.IMAGE, "image/jpeg"),
    ".png": (MediaKind.IMAGE, "image/png"),
    ".ogg": (MediaKind.VOICE, "audio/ogg; codecs=opus"),
    ".opus": (MediaKind.VOICE, "audio/ogg; codecs=opus"),
    ".mp3": (MediaKind.AUDIO, "audio/mpeg"),
    ".m4a": (MediaKind.AUDIO, "audio/mp4"),
    ".aac": (MediaKind.AUDIO, "audio/aac"),
    ".amr": (MediaKind.AUDIO, "audio/amr"),
    ".mp4": (MediaKind.VIDEO, "video/mp4"),
    ".3gp": (MediaKind.VIDEO, "video/3gpp"),
    ".pdf": (MediaKind.DOCUMENT, "application/pdf"),
    ".txt": (MediaKind.DOCUMENT, "text/plain"),
    ".csv": (MediaKind.DOCUMENT, "text/csv"),
    ".zip": (MediaKind.DOCUMENT, "application/zip"),
    ".doc": (MediaKind.DOCUMENT, "application/msword"),
    ".xls": (MediaKind.DOCUMENT, "application/vnd.ms-excel"),
    ".ppt": (MediaKind.DOCUMENT, "application/vnd.ms-powerpoint"),
    ".docx": (MediaKind.DOCUMENT, f"{_OFFICE}.wordprocessingml.document"),
    ".xlsx": (MediaKind.DOCUMENT, f"{_OFFICE}.spreadsheetml.sheet"),
    ".pptx": (MediaKind.DOCUMENT, f"{_OFFICE}.presentationml.presentation"),
}


@dataclass(frozen=True, slots=True)
class PhoneFile:
    """A file that a person sends.

    kind, content_type, name   what the phone's app says of it
    media_id                   the provider's id of it, digits
    link                       the address at which whoever has it gets the file
    digest                     SHA-256, in hexadecimal
    size                       bytes
    """

    kind: MediaKind
    content_type: str
    name: str
    media_id: str
    link: str
    digest: str
    size: int

    @property
    def digest_in_base64(self) -> str:
        """The digest as webhooks of WhatsApp have it."""
        return base64.b64encode(bytes.fromhex(self.digest)).decode()


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """A request for a file that a person sent: for the file itself, or for its record, which has the link."""

    media_id: str
    is_for_content: bool


def kind_and_type(name: str) -> tuple[MediaKind, str] | None:
    """Return how the phone's app sends a file of this name, and as which type; None if it knows no such files."""
    return TYPES.get(PurePosixPath(name.lower()).suffix)
