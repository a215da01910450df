"""A program's own host, with files by their paths.

with Shelf() as shelf:
    f"{shelf.url}/invoice.pdf"
"""

from __future__ import annotations

from tests.fakes.server import FakeServer, Received, Reply
from tests.media_files import document, picture


class Shelf(FakeServer):
    """The host. `files` are its files; others are not there."""

    def __init__(self) -> None:
        self.files = {"/parts/Part%207.jpg": picture(), "/invoice.pdf": document(), "/big.jpg": document(6_000_000)}
        super().__init__()

    def handle(self, request: Received) -> Reply:
        """Answer with the file."""
        return Reply(200, self.files[request.path]) if request.path in self.files else Reply(404, b"")
