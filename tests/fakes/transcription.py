"""A provider that writes recordings down: OpenAI's `/audio/transcriptions`, over real loopback HTTP.

with FakeTranscription("Where is my parcel?") as heard:
    ModelProvider(base_url=heard.base_url, …)
    heard.files[0]      # the name of the first recording
"""

from __future__ import annotations

import re

from tests.fakes.server import FakeServer, Received, Reply


class FakeTranscription(FakeServer):
    """Says `text` for every recording. `files` are the names under which they came, `sizes` their forms' bytes."""

    def __init__(self, text: str = "", port: int = 0) -> None:
        self.text, self.files, self.sizes = text, [], []  # type: ignore[var-annotated]
        super().__init__(port)

    @property
    def base_url(self) -> str:
        """The base URL for a model provider."""
        return f"{self.url}/v1"

    def handle(self, request: Received) -> Reply:
        """Answer as OpenAI does."""
        if request.path != "/v1/audio/transcriptions" or b'name="model"' not in request.body:
            return Reply(404, {"error": {"message": "Unknown"}})
        found = re.search(rb'filename="([^"]+)"', request.body)
        self.files.append(found[1].decode() if found else "")
        self.sizes.append(len(request.body))
        return Reply(200, {"text": self.text})
