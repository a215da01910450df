"""The parts of an MCP tool's answer: texts for the model, and files for the person.

Pictures, recordings and embedded files are for the person, unless their `audience` is the assistant alone. An embedded
text and a link to a resource are for the model, unless their `audience` names the user.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Sequence
from typing import Any

from channels_out.given_files import GivenFile, InvalidFileError, decoded, name_of, read_file

_WORDS = {"image": "picture", "audio": "recording"}
_ENDINGS = {"audio/wav": ".wav", "audio/ogg": ".ogg", "audio/mp3": ".mp3"}  # beside those that are registered


def texts_of(content: Sequence[Any]) -> list[str]:
    """Return the texts of the answer that are for the model, and the links to resources."""
    return [text for part in content if (text := _text_of(part))]


def files_of(content: Sequence[Any]) -> tuple[tuple[GivenFile, ...], tuple[str, ...]]:
    """Return the files of the answer that are for the person, and why others cannot be taken."""
    files, refused = [], []
    for number, part in enumerate(filter(_is_for_the_person, content), start=1):
        try:
            files.append(_file_of(part))
        except InvalidFileError as error:
            refused.append(f"file {number}: {error}")
    return tuple(files), tuple(refused)


def _text_of(part: Any) -> str:
    kind = getattr(part, "type", "")
    if kind == "text":
        return str(part.text)
    if _is_for_the_person(part):
        return ""
    if kind == "resource":
        return str(getattr(part.resource, "text", ""))
    return f"{part.name}: {part.uri}" if kind == "resource_link" else ""


def _is_for_the_person(part: Any) -> bool:
    kind, audience = getattr(part, "type", ""), _audience(part)
    if kind in _WORDS or (kind == "resource" and hasattr(part.resource, "blob")):
        return not audience or "user" in audience
    return kind in ("resource", "resource_link") and "user" in audience


def _audience(part: Any) -> Iterable[str]:
    hints = getattr(part, "annotations", None)
    return (hints.audience if hints else None) or ()


def _file_of(part: Any) -> GivenFile:
    """Return the file of one part. Raises InvalidFileError."""
    if part.type == "resource_link":
        return read_file({"url": str(part.uri), "name": part.title or part.name})
    if part.type in _WORDS:
        return GivenFile(_WORDS[part.type] + _ending(part.mime_type), content=decoded(part.data))
    resource = part.resource
    name = name_of("", str(resource.uri))
    content = decoded(resource.blob) if hasattr(resource, "blob") else resource.text.encode("utf-8", "replace")
    return GivenFile(name_of(name if "." in name else name + _ending(resource.mime_type)), content=content)


def _ending(content_type: str | None) -> str:
    wanted = (content_type or "").partition(";")[0].strip().lower()
    return _ENDINGS.get(wanted) or mimetypes.guess_extension(wanted) or ""
