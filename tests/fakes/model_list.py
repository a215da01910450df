"""A fake of the providers' lists of models: `GET /v1/models` as OpenAI and Anthropic answer it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.server import FakeServer, Received, Reply


class FakeModelList(FakeServer):
    """The server. `models`: name to shutdown date. Another key than `key` is refused. `page`: how many a page has."""

    def __init__(self, *names: str, key: str = "sk-list", page: int = 2) -> None:
        self.models: dict[str, str | None] = dict.fromkeys(names)
        self.key, self.page = key, page
        super().__init__()

    @property
    def base_url(self) -> str:
        """The base URL of an OpenAI-compatible provider."""
        return f"{self.url}/v1"

    def handle(self, request: Received) -> Reply:
        """Return the list, whole to OpenAI's clients and in pages to Anthropic's."""
        address = urlsplit(request.path)
        if request.method != "GET" or address.path != "/v1/models":
            return Reply(404, {"error": {"message": "Not found"}})
        if "anthropic-version" in request.headers:
            asked = {name: values[0] for name, values in parse_qs(address.query).items()}
            return self._page(request, asked.get("after_id", ""))
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply(401, {"error": {"message": f"Incorrect API key: {request.headers.get('authorization')}"}})
        data = [{"id": name, "object": "model", "shutdown_date": day} for name, day in self.models.items()]
        return Reply(200, {"object": "list", "data": data})

    def _page(self, request: Received, after: str) -> Reply:
        if request.headers.get("x-api-key") != self.key:
            return Reply(401, {"type": "error", "error": {"type": "authentication_error"}})
        names = list(self.models)
        begin = names.index(after) + 1 if after else 0
        shown = names[begin : begin + self.page]
        data: list[dict[str, Any]] = [{"type": "model", "id": name, "display_name": name.title()} for name in shown]
        ends = {"first_id": shown[0], "last_id": shown[-1]} if shown else {"first_id": None, "last_id": None}
        return Reply(200, {"data": data, "has_more": begin + self.page < len(names), **ends})
