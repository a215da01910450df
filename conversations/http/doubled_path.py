"""Requests of agents whose base URL already ends in the sync protocol's path, which they add once more."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

PATH = "/api/v1"
DOUBLED = f"{PATH}{PATH}/"


def without_doubled_path(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Return the middleware that reads `/api/v1/api/v1/…` as `/api/v1/…`."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(DOUBLED):
            request.path_info = request.path_info.removeprefix(PATH)
            request.path = request.path.replace(DOUBLED, f"{PATH}/", 1)
        return get_response(request)

    return middleware
