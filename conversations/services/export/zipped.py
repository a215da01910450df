"""A zip that is written while it is read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

BLOCK = 64 * 1024


class _Sink(io.RawIOBase):
    """Takes what the zip writes, until somebody takes it on. Nobody can go back in it, which zipfile knows."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """More of the zip."""
        self._written += data
        return len(data)

    def taken(self, at_least: int = 0) -> bytes:
        """What was written since, if it is that much."""
        if len(self._written) < max(at_least, 1):
            return b""
        piece = bytes(self._written)
        self._written.clear()
        return piece


def zipped(files: Iterable[tuple[str, Iterable[bytes]]], at: tuple[int, int, int, int, int, int]) -> Iterator[bytes]:
    """The pieces of a zip of these files (name, pieces), each dated `at`: year, month, day, hour, minute, second."""
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
