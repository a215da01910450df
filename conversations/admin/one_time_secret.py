"""Secrets that are shown once, in the answer to the request that made them, and stored nowhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse


def show_once(admin: Any, request: HttpRequest, row: Any, *, title: str, about: str, secret: str) -> HttpResponse:
    """Return a page that shows the secret and tells browsers not to store it."""
    context = {
        **admin.admin_site.each_context(request),
        "title": title,
        "opts": admin.opts,
        "about": about,
        "secret": secret,
        "back": reverse(f"admin:{admin.opts.app_label}_{admin.opts.model_name}_change", args=[row.pk]),
    }
    template = "admin/one_time_secret/one_time_secret.html"
    return TemplateResponse(request, template, context, headers={"Cache-Control": "no-store"})
