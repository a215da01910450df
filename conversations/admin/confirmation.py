"""Actions on one row that are confirmed first: a page says what will happen, and only its button does it."""

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

from conversations.admin.base import Breadcrumb
from conversations.admin.transcript_view import plain_text
from conversations.services.core.errors import DomainError

RowAction = Callable[..., str | HttpResponseBase]


def confirmed(
    title: str,
    *,
    question: str | Callable[[Any], str],
    icon: str,
    path: str,
    permission: str = "change",
    form: Callable[[Any, Any], Form] | None = None,
    destroys: bool = False,
) -> Callable[[RowAction], Any]:
    """Turn a method of an admin into an action of one row (for `actions_detail`) with a confirmation page.

    Arguments:
        question: what will happen, or a function of the row that says it.
        permission: the user needs `has_<permission>_permission` of the admin for the row.
        destroys: it cannot be undone, and its button is red.
        form: a function of the row and the posted data (None on GET) that makes the form of the page.

    On POST the method is called with the row and, if there is a form, its cleaned data. It returns the sentence to show
    on the row's page, or a response of its own. A DomainError of a service is shown as a sentence, too. The method runs
    in no transaction: it may call a provider.
    """

    def decorate(run: RowAction) -> Any:
        @wraps(run)
        def view(admin: Any, request: HttpRequest, object_id: str) -> HttpResponseBase:
            row = admin.get_object(request, unquote(object_id))
            if row is None:
                not_found: HttpResponse = admin.row_not_found(request, object_id)
                return not_found
            if not getattr(admin, f"has_{permission}_permission")(request, row):
                raise PermissionDenied
            back = reverse(f"admin:{admin.opts.app_label}_{admin.opts.model_name}_change", args=[row.pk])
            asked = form(row, request.POST if request.method == "POST" else None) if form else None
            if request.method != "POST" or (asked and not asked.is_valid()):
                asks = question(row) if callable(question) else question
                context = {"title": title, "subtitle": str(row), "question": asks, "opts": admin.opts, "back": back}
                context["variant"] = "danger" if destroys else "primary"
                context |= {"form": asked, "object": Breadcrumb(row, plain_text(str(row)))}
                return TemplateResponse(
                    request,
                    "admin/confirmation/confirmation.html",
                    {**admin.admin_site.each_context(request), **context},
                )
            try:
                said = run(admin, request, row, asked.cleaned_data) if asked else run(admin, request, row)
            except DomainError as error:
                admin.message_user(request, str(error), messages.ERROR)
                return redirect(back)
            if isinstance(said, HttpResponseBase):
                return said
            admin.message_user(request, said, messages.SUCCESS)
            return redirect(back)

        return action(view, description=title, url_path=path, permissions=[permission], icon=icon)

    return decorate
