"""Zip files that are written while they are read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

BLOCK = 64 * 1024


class _Sink(io.RawIOBase):
    """The file that zipfile writes to. It keeps what was written until `taken` and cannot seek, as zipfile allows."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Append to what was written and return the number of bytes."""
        self._written += data
        return len(data)

    def taken(self, at_least: int = 0) -> bytes:
        """Return what was written since the last call, if it is at least so many bytes, else b''."""
        if len(self._written) < max(at_least, 1):
            return b""
        piece = bytes(self._written)
        self._written.clear()
        return piece


def zip_pieces(
    files: Iterable[tuple[str, Iterable[bytes]]], at: tuple[int, int, int, int, int, int]
) -> Iterator[bytes]:
    """Yield the pieces of a zip of the files (name, pieces of content).

    at: the date of each file, as year, month, day, hour, minute and second
    """
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_DEFLATED) as archive:
        for name, pieces in files:
            entry = ZipInfo(name, at)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            with archive.open(entry, "w", force_zip64=True) as file:
                for piece in pieces:
                    file.write(piece)
                    if block := sink.taken(BLOCK):
                        yield block
    if rest := sink.taken():
        yield rest
