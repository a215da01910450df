"""Files that are made for whoever asks: as a whole before the first byte goes, on disk and not in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from conversations.services.export.pages import POLICY

IN_MEMORY = 1_000_000  # bytes; what is larger is on disk, in a file without a name
BLOCK = 64 * 1024


class _Blocks:
    """The file, a block at a time; it goes when the response is closed."""

    def __init__(self, file: SpooledTemporaryFile[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(BLOCK), b"")

    def close(self) -> None:
        """What Django calls, however the response ends."""
        self._file.close()


class Download(StreamingHttpResponse):
    """A response with a file. What goes wrong while it is made is an error, and no file that ends in its middle; who
    reads it slowly holds neither a database connection nor a place (places.py)."""

    waits = True

    def __init__(self, pieces: Iterable[bytes], *, name: str, content_type: str, shown: bool = False) -> None:
        file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with the response
        try:
            for piece in pieces:
                file.write(piece)
            length = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": str(content_disposition_header(not shown, name)),
            "Content-Length": str(length),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        }
        super().__init__(_Blocks(file), content_type=content_type, headers=headers)
