"""The kind of a file: told by its bytes, whatever its sender says, and its thumbnail.

Only what is named here is shown by a browser in place. All else is offered as a file to save.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from warnings import catch_warnings, simplefilter

from PIL import Image, ImageOps, UnidentifiedImageError

HEAD_BYTES = 4_096
THUMBNAIL_PIXELS = 480  # the longer side
MODEL_PIXELS = 1_568  # the longer side; providers make larger ones smaller
MOST_PIXELS = 80_000_000  # a picture of more is kept, and has no thumbnail
UNKNOWN = "application/octet-stream"
TEXT = "text/plain"
PICTURES = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"#!AMR", "audio/amr"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"BEGIN:VCARD", "text/vcard"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"PK\x03\x04", "application/zip"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_OFFICE = {
    "word/": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xl/": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt/": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"F4A ")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

# Types that a browser shows in place, and none of which it runs. SVG and HTML are not among them.
SHOWN = frozenset(
    {
        *PICTURES.values(),
        *("audio/amr", "audio/mpeg", "audio/ogg", "audio/flac", "audio/wav", "audio/mp4", "audio/aac"),
        *("video/mp4", "video/webm", "video/3gpp", "video/quicktime"),
    }
)
ENDINGS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "audio/amr": ".amr",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/wav": ".wav",
    "audio/mp4": ".m4a",
    "audio/aac": ".aac",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/3gpp": ".3gp",
    "video/quicktime": ".mov",
    "video/x-msvideo": ".avi",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "text/vcard": ".vcf",
    TEXT: ".txt",
    _OFFICE["word/"]: ".docx",
    _OFFICE["xl/"]: ".xlsx",
    _OFFICE["ppt/"]: ".pptx",
}


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as WebP, without metadata, and its size in pixels."""

    data: bytes
    width: int
    height: int


def type_of(content: IO[bytes]) -> str:
    """Return the media type that the content shows, UNKNOWN if it shows none. The position is moved."""
    content.seek(0)
    head = content.read(HEAD_BYTES)
    found = next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), "")
    if found == "application/zip":
        return _office(content) or found
    if found:
        return found
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _iso_media(head[8:12])
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "audio/mpeg"
    return TEXT if _is_text(head) else UNKNOWN


def _iso_media(brand: bytes) -> str:
    if brand in _AUDIO_BRANDS:
        return "audio/mp4"
    if brand.startswith(b"3g"):
        return "video/3gpp"
    if brand in (b"heic", b"heix", b"mif1", b"avif"):
        return "image/avif" if brand == b"avif" else "image/heic"
    return "video/quicktime" if brand == b"qt  " else "video/mp4"


def _office(content: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(content) as archive:
            names = [each.filename for each in archive.infolist()[:2_000]]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ""
    if "[Content_Types].xml" not in names:
        return ""
    return next((kind for folder, kind in _OFFICE.items() if any(name.startswith(folder) for name in names)), "")


def _is_text(head: bytes) -> bool:
    if not head or _CONTROLS.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # the head ends within a character
    return True


# --- pictures ---------------------------------------------------------------------------------------------------------
def small_picture(content: IO[bytes]) -> Thumbnail | None:
    """Return a thumbnail of the picture; None if it is none that can be read, or too large to be."""
    found: Thumbnail | None = _read(content, _as_thumbnail)
    return found


def for_model(content: IO[bytes]) -> bytes | None:
    """Return the picture as a JPEG of at most MODEL_PIXELS, without metadata; None if it cannot be read."""
    found: bytes | None = _read(content, _as_jpeg)
    return found


def _as_jpeg(picture: Image.Image) -> bytes:
    picture.draft("RGB", (MODEL_PIXELS * 2, MODEL_PIXELS * 2))
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((MODEL_PIXELS, MODEL_PIXELS))
    paper = Image.new("RGB", upright.size, "white")  # behind what is transparent
    paper.paste(upright.convert("RGBA"), mask=upright.convert("RGBA").getchannel("A"))
    written = io.BytesIO()
    paper.save(written, "JPEG", quality=85)
    return written.getvalue()


def _as_thumbnail(picture: Image.Image) -> Thumbnail:
    picture.draft("RGB", (THUMBNAIL_PIXELS * 2, THUMBNAIL_PIXELS * 2))  # a JPEG is read at a part of its size
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    has_holes = upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info
    plain = upright.convert("RGBA" if has_holes else "RGB")
    small = io.BytesIO()
    plain.save(small, "WEBP", quality=78, exif=b"", icc_profile=b"", xmp=b"")
    return Thumbnail(small.getvalue(), plain.width, plain.height)


def _read(content: IO[bytes], work: Callable[[Image.Image], Any]) -> Any:
    """Return what the work makes of the picture; None if it cannot be read."""
    content.seek(0)
    try:
        with catch_warnings():
            simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content, formats=tuple(PICTURES)) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    return None
                return work(picture)
    # What Pillow raises over hostile files is not one class: its decoders raise what they come by.
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, MemoryError, ArithmeticError):
        return None


def temporary() -> SpooledTemporaryFile[bytes]:
    """Return a file that is on disk once it is large, without a name, and gone when it is closed."""
    return SpooledTemporaryFile(max_size=1_000_000)
