"""Deeds that are asked about first: a page of their own says what will happen, and only its button does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import action

from conversations.admin.base import Crumb
from conversations.admin.entries import plainly
from conversations.services.core.errors import DomainError

Deed = Callable[..., str | HttpResponseBase]


def confirmed(
    title: str,
    *,
    question: str | Callable[[Any], str],
    icon: str,
    path: str,
    permission: str = "change",
    form: Callable[[Any, Any], Form] | None = None,
) -> Callable[[Deed], Any]:
    """Make a method of a Page an action of one row (for `actions_detail`), for whoever has the permission: the page's
    `has_change_permission`, or another of its own.

    `question` may be made of the row. `form` makes what is asked beside, of the row and the data posted (None on a
    GET). The method gets the row on POST, and then what the valid form says. It returns the sentence to show on the
    row's page, or a page of its own; a DomainError of the services is shown as a sentence too. It runs in no
    transaction: it may ask a provider.
    """

    def decorate(deed: Deed) -> Any:
        @wraps(deed)
        def view(page: Any, request: HttpRequest, object_id: str) -> HttpResponseBase:
            row = page.get_object(request, unquote(object_id))
            if row is None:
                missing: HttpResponse = page.missing(request, object_id)
                return missing
            if not getattr(page, f"has_{permission}_permission")(request, row):
                raise PermissionDenied
            back = reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_change", args=[row.pk])
            asked = form(row, request.POST if request.method == "POST" else None) if form else None
            if request.method != "POST" or (asked and not asked.is_valid()):
                asks = question if isinstance(question, str) else question(row)
                context = {"title": title, "subtitle": str(row), "question": asks, "opts": page.opts, "back": back}
                context |= {"form": asked, "object": Crumb(row, plainly(str(row)))}
                return TemplateResponse(
                    request, "admin/confirm.html", {**page.admin_site.each_context(request), **context}
                )
            try:
                said = deed(page, request, row, asked.cleaned_data) if asked else deed(page, request, row)
            except DomainError as error:
                page.message_user(request, str(error), messages.ERROR)
                return redirect(back)
            if isinstance(said, HttpResponseBase):
                return said
            page.message_user(request, said, messages.SUCCESS)
            return redirect(back)

        return action(view, description=title, url_path=path, permissions=[permission], icon=icon)

    return decorate
