"""The page at `/`, which leads a browser to the back office, the simulator, the copilot and the API's documentation."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt

from conversations.endpoints.copilot_pages import APP, guarded
from conversations.http import envelope

JSON_FIRST = [envelope.JSON, "text/html"]  # a program that accepts anything is answered as on every unknown route


@csrf_exempt
@guarded
def start_page(request: HttpRequest) -> HttpResponse:
    """Return the start page to a browser, and to every other client the 404 of a route that does not exist."""
    if request.method in ("GET", "HEAD") and request.get_preferred_type(JSON_FIRST) == "text/html":
        links = {
            "admin_url": reverse("admin:index"),
            "simulator_url": reverse("admin:simulator"),
            "copilot_url": APP,
            "docs_url": reverse("docs"),
        }
        answer = render(request, "start_page.html", links)
    else:
        answer = envelope.failure(404, "not_found", envelope.NOT_FOUND)
    patch_vary_headers(answer, ["Accept"])
    return answer
