"""Downloads: files that are made as a whole before the first byte is sent, on disk and not in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from tempfile import SpooledTemporaryFile

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from conversations.services.export.pages import POLICY

IN_MEMORY = 1_000_000  # bytes; a larger file is on disk, without a name
BLOCK = 64 * 1024


class _Blocks:
    """The file in blocks; it is deleted when the response is closed."""

    def __init__(self, file: SpooledTemporaryFile[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(BLOCK), b"")

    def close(self) -> None:
        """Delete the file. Django calls this however the response ends."""
        self._file.close()


class Download(StreamingHttpResponse):
    """A response with a file, made of `pieces` before it is sent.

    An error while the file is made is an error response, not a file that ends in its middle. A slow reader holds
    neither a thread nor a database connection: the server sends the file (wsgi_bridge.py).

    shown: the browser shows the file instead of saving it
    more: further headers, or other values of those that it has
    file: the file, if it is on disk
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        name: str,
        content_type: str,
        shown: bool = False,
        status: int = 200,
        more: Mapping[str, str] | None = None,
    ) -> None:
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
            **(more or {}),
        }
        super().__init__(_Blocks(file), content_type=content_type, headers=headers, status=status)
        self.file = file if length > IN_MEMORY else None
