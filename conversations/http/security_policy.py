"""The Content-Security-Policy of every page: nothing from elsewhere, and no script that stands in a page itself.

The back office's library evaluates expressions in its own markup (Alpine) and sets styles there, so its pages allow
these two and no more (docs/decisions/0031-content-security-policy.md). The copilot's pages and exports set their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "Content-Security-Policy"
STRICT: Mapping[str, str] = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
STYLED = {**STRICT, "style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:"}
BY_PATH = {
    "/admin/": {**STYLED, "script-src": "'self' 'unsafe-eval'"},
    "/docs/": STYLED,
}


def _text(policy: Mapping[str, str]) -> str:
    return "; ".join(f"{directive} {sources}" for directive, sources in policy.items())


_STRICT = _text(STRICT)
_BY_PATH = {path: _text(policy) for path, policy in BY_PATH.items()}


def policy_of(path: str) -> str:
    """Return the policy of the page at the path."""
    return next((policy for beginning, policy in _BY_PATH.items() if path.startswith(beginning)), _STRICT)


class SecurityPolicyMiddleware:
    """Gives every page that has no policy of its own the one of its path."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Return the response with its policy."""
        response = self._get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            response.headers.setdefault(HEADER, policy_of(request.path_info))
        return response
