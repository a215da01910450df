"""The files of WhatsApp's messages: which a message has, and the links from which they are fetched.

A payload names a file by an id. Asked for it, Meta gives a link that lives five minutes and wants the account's token.
Source: Meta, WhatsApp Cloud API, "Media", "Flows: photo and document pickers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from channels_out import http
from channels_out.adapters.meta import GraphErrors
from channels_out.contract import Account, FileRule, MediaLink, OutboundFile
from channels_out.errors import InboundError, SendError
from channels_out.events import MediaReference
from channels_out.kinds import MediaKind
from channels_out.multipart import multipart
from channels_out.shapes import identifier, load_json, record, text, value_of

MOST_MEDIA = 20  # of one message; a form has up to 30 photos
_KINDS = {
    "image": MediaKind.IMAGE,
    "video": MediaKind.VIDEO,
    "audio": MediaKind.AUDIO,
    "voice": MediaKind.VOICE,
    "document": MediaKind.DOCUMENT,
    "sticker": MediaKind.STICKER,
}
_LONGEST_NAME = 200


def read_media(kind: str, item: dict[str, Any]) -> tuple[MediaReference, ...]:
    """Return the files of a message: the one of a picture, recording or document, or those of a form's answers."""
    if kind not in _KINDS and kind != "interactive":
        return ()
    content = record(item, kind)
    if kind in _KINDS and (source := identifier(content, "id")):
        what = MediaKind.VOICE if content.get("voice") is True else _KINDS[kind]
        return (_reference(what, source, content, "filename"),)
    if kind == "interactive":
        return tuple(_of_form(text(record(content, text(content, "type")), "response_json")))[:MOST_MEDIA]
    return ()


def _of_form(response: str) -> list[MediaReference]:
    """Return the files in a form's answers: objects with an id and a type, in arrays."""
    try:
        answers = load_json(response.encode()) if response else None
    except InboundError:
        return []
    found = []
    for answer in answers.values() if type(answers) is dict else ():
        for each in answer if type(answer) is list else ():
            number = value_of(each, "id")
            source = str(number) if type(number) is int else identifier(each, "id")
            if source and text(each, "mime_type"):
                is_picture = text(each, "mime_type").startswith("image/")
                kind = MediaKind.IMAGE if is_picture else MediaKind.DOCUMENT
                found.append(_reference(kind, source, each, "file_name"))
    return found


def _reference(kind: MediaKind, source: str, content: Mapping[str, Any], name: str) -> MediaReference:
    return MediaReference(kind, source, text(content, "mime_type")[:_LONGEST_NAME], text(content, name)[:_LONGEST_NAME])


# Source: Meta, "Supported media types". Of an audio in OGG only the codec Opus is taken, which the type does not say.
RULES = (
    FileRule(MediaKind.IMAGE, 5_000_000, frozenset({"image/jpeg", "image/png"})),
    FileRule(
        MediaKind.AUDIO, 16_000_000, frozenset({"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"})
    ),
    FileRule(MediaKind.VIDEO, 16_000_000, frozenset({"video/mp4", "video/3gpp"})),
    FileRule(MediaKind.DOCUMENT, 100_000_000),
)


def upload(url: str, file: OutboundFile, headers: Mapping[str, str], account: Account, errors: GraphErrors) -> str:
    """Upload the file and return the id by which a message names it. Raises SendError: nothing was sent to anybody."""
    body, form = multipart(
        {"messaging_product": "whatsapp", "type": file.content_type}, file.name, file.content_type, file.read()
    )
    try:
        answer = http.post_bytes(url, body, headers={**headers, "Content-Type": form}, timeout=account.timeout)
    except SendError as error:
        raise _as_not_sent(error) from None
    if refusal := errors.error_of(answer, otherwise=f"{errors.product} did not take the file."):
        raise _as_not_sent(refusal)
    media_id = identifier(answer.json(), "id")
    if not media_id:
        raise SendError(f"{errors.product}'s answer names no file.", code="bad_answer", retryable=True)
    return media_id


def _as_not_sent(error: SendError) -> SendError:
    """Return the error of an upload: if its answer was lost, the file is uploaded again, since nobody got it."""
    if not error.ambiguous:
        return error
    return SendError(str(error), code=error.code, retryable=True, retry_after=error.retry_after)


def compose_file(file: OutboundFile, media_id: str) -> dict[str, Any]:
    """Return the part of a message's JSON that is about its file."""
    name = {"filename": file.name} if file.kind is MediaKind.DOCUMENT else {}
    return {"type": file.kind.value, file.kind.value: {"id": media_id, **name}}


def link_of(account: Account, source: str, headers: Mapping[str, str], errors: GraphErrors) -> MediaLink:
    """Return the link of the file with this id. Raises SendError (`gone` where Meta does not have it any more)."""
    url = f"{account.base_url}/{quote(source, safe='')}"
    answer = http.get(url, headers=headers, timeout=account.timeout)
    error = errors.error_of(answer, otherwise=f"{errors.product} gave no link for the file.")
    if error and (answer.status == 404 or error.code == "100"):
        raise SendError(f"{errors.product} does not have the file any more. ({error.code})", code="gone")
    if error:
        raise error
    content = answer.json()
    link, size = text(content, "url"), value_of(content, "file_size")
    if urlsplit(link).scheme not in ("http", "https"):
        raise SendError(f"{errors.product}'s answer has no link for the file.", code="bad_answer", retryable=True)
    digits = str(size)
    return MediaLink(link, headers, int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0)
