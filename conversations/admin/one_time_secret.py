"""Secrets that are shown once: in the answer to the request that made them, and kept nowhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse


def shown_once(page: Any, request: HttpRequest, row: Any, *, title: str, about: str, secret: str) -> HttpResponse:
    """A page that shows the secret, and is never stored: not by a browser, nor in a session."""
    context = {
        **page.admin_site.each_context(request),
        "title": title,
        "opts": page.opts,
        "about": about,
        "secret": secret,
        "back": reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_change", args=[row.pk]),
    }
    return TemplateResponse(request, "admin/shown_once.html", context, headers={"Cache-Control": "no-store"})
