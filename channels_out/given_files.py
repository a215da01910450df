"""Files that a tool or a client's own agent gives with its answer: each at a URL, or as its content in base64.

{"url": "https://shop.example/May.pdf", "name": "May.pdf"}      {"data": "JVBERi0…", "name": "May.pdf"}
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from channels_out.shapes import clean_text

MOST_FILES = 10  # of one message
LONGEST_NAME = 120
LONGEST_URL = 4_000
WEB_ADDRESS = r"^https?://[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,20}(:[0-9]{1,5})?(/[!-~]*)?$"
NOT_AN_ADDRESS = "Must be an http:// or https:// address without a user name or password."
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")


class InvalidFileError(ValueError):
    """A file cannot be taken. The message is a sentence that quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file: its name, and its URL or else its content."""

    name: str
    url: str = ""
    content: bytes = field(default=b"", repr=False)


def name_of(name: str, url: str = "", default: str = "file") -> str:
    """Return the name of a file on one line: the last part of its URL's path where it has none."""
    try:
        path = unquote(urlsplit(url).path).rstrip("/")
    except ValueError:  # an address that is none
        path = ""
    line = " ".join(clean_text(name or path.rpartition("/")[2]).split())
    return (line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…") or default


def read_file(value: Any, *, takes_data: bool = True) -> GivenFile:
    """Return the file that the JSON value names. Raises InvalidFileError."""
    if not isinstance(value, Mapping):
        raise InvalidFileError('Must be an object, such as {"url": "https://…", "name": "May.pdf"}.')
    known = ("url", "name", *(["data"] if takes_data else []))
    if unknown := sorted(set(map(str, value)) - set(known)):
        raise InvalidFileError(f"The field {clean_text(unknown[0])[:40]!r} is not supported.")
    given = {key: each for key, each in value.items() if each is not None}
    if not all(isinstance(each, str) for each in given.values()):
        raise InvalidFileError("Its fields must be strings.")
    url, data, name = given.get("url", ""), given.get("data", ""), given.get("name", "")
    if bool(url) == bool(data):
        raise InvalidFileError("Must have either url or data." if takes_data else "Must have a url.")
    if url and (len(url) > LONGEST_URL or not re.fullmatch(WEB_ADDRESS, url)):
        raise InvalidFileError(NOT_AN_ADDRESS)
    return GivenFile(name_of(name, url), url, decoded(data))


def read_files(value: Any) -> tuple[GivenFile, ...]:
    """Return the files at URLs that a list names. Raises InvalidFileError for one that is not valid, or too many."""
    if not isinstance(value, list):
        raise InvalidFileError("Must be a list of files.")
    if len(value) > MOST_FILES:
        raise InvalidFileError(f"At most {MOST_FILES} files are possible.")
    return tuple(read_file(each, takes_data=False) for each in value)


def taken_out(answer: Any) -> tuple[dict[str, Any], tuple[GivenFile, ...], tuple[str, ...]] | None:
    """Return a tool's JSON answer without its files, the files, and why others cannot be taken; None if it names none.

    It names files where `attachments` is a list of objects, each with a `url` or `data`.
    """
    if not isinstance(answer, Mapping) or not _names_files(answer.get("attachments")):
        return None
    files, refused = [], []
    for number, each in enumerate(answer["attachments"], start=1):
        try:
            files.append(read_file(each))
        except InvalidFileError as error:
            refused.append(f"file {number}: {error}")
    return {name: each for name, each in answer.items() if name != "attachments"}, tuple(files), tuple(refused)


def _names_files(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(each, Mapping) and ("url" in each or "data" in each) for each in value)


def decoded(data: str) -> bytes:
    """Return the content of base64, also of a data URL. Raises InvalidFileError."""
    try:
        return base64.b64decode(_DATA_URL.sub("", data, count=1), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidFileError("Its data is not base64.") from None
