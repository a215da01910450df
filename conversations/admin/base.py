"""What all pages share: each shows its user the rows of the user's clients, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.admin import RelatedFieldListFilter
from django.contrib.admin.utils import unquote
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from conversations.admin import access
from conversations.admin.access import Role
from conversations.models import Client
from conversations.services.core import audit_log

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin  # unfold's has no types; it is this one with more attributes
else:
    from unfold.admin import ModelAdmin


class Crumb:
    """A row as the last word of the way that stands at the head of a page of its own: by a title instead of its
    name. unfold's header takes it for the row."""

    def __init__(self, row: Model, title: str) -> None:
        self.pk, self._meta, self._title = row.pk, row._meta, title

    def __str__(self) -> str:
        return self._title


class ClientsOwn(RelatedFieldListFilter):
    """A filter by a related row that offers only rows that the user may see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        """The choices."""
        visible = visible_rows(request, model_admin.admin_site, field.remote_field.model)
        ordering = self.field_admin_ordering(field, request, model_admin)
        return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to={"pk__in": visible})


class Page(ModelAdmin):  # type: ignore[type-arg]
    """A table's pages, scoped to the clients of whoever looks.

    client_path     the way from a row to its client as a lookup: "client", "conversation__client", "pk" (it is the
                    client); "" (a page that does not say) is a superuser's alone
    to_view … to_delete     the role one needs in the row's client, or SUPERUSER; None: nobody, superusers neither

    Django's own permissions play no part. A row of another client is met as if it did not exist: lists, forms,
    histories, autocompletes and actions all read through `get_queryset`, and choices of related rows through the
    `get_queryset` of their own page. What is added, changed and deleted is in the audit trail (services/audit.py),
    which is also the history of a row.
    """

    client_path = ""
    nothing = "Nothing here yet."  # what an empty list says
    to_view: str | None = Role.VIEWER
    to_add: str | None = Role.MANAGER
    to_change: str | None = Role.MANAGER
    to_delete: str | None = None

    show_full_result_count = False
    list_per_page = 50
    list_fullwidth = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows of the user's clients; all for a superuser."""
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        if not self.client_path:
            return rows.none()
        return rows.filter(**{f"{self.client_path}__in": access.client_ids_of(request.user)})

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list, which knows what it says where it is empty: unfold's template of its rows is given nothing else."""
        shown: Any = super().get_changelist_instance(request)
        shown.is_narrowed = any(request.GET.values())
        shown.nothing = self.nothing_in(request, is_narrowed=shown.is_narrowed)
        shown.may_add = self.has_add_permission(request)
        return shown

    def nothing_in(self, request: HttpRequest, *, is_narrowed: bool) -> str:
        """What is said where the list that is asked for is empty."""
        return "Nothing matches." if is_narrowed else self.nothing

    def client_id_of(self, row: Any) -> UUID | None:
        """The id of the row's client; None where it has none."""
        *way, last = self.client_path.split("__")
        for name in way:
            row = getattr(row, name)
        found: UUID | None = row.pk if last == "pk" else getattr(row, f"{last}_id")
        return found

    def may(self, request: HttpRequest, role: str | None, row: Any = None) -> bool:
        """Whether the user has the role in the row's client; without a row, in any client."""
        user = request.user
        if role is None or not (user.is_active and user.is_staff):
            return False
        if user.is_superuser:
            return True
        if not self.client_path:
            return False
        if not isinstance(row, self.model):
            return access.can_somewhere(user, role)
        client_id = self.client_id_of(row)
        return client_id is not None and access.can(user, role, client_id)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the page is listed."""
        return self.may(request, self.to_view)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whether the row may be read."""
        return self.may(request, self.to_view, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether rows may be added."""
        return self.may(request, self.to_add)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whether the row may be edited."""
        return self.may(request, self.to_change, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whether the row may be deleted."""
        return self.may(request, self.to_delete, obj)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        """Offer, and take, only rows that the user may see, and as a client only one where the user may add rows."""
        model: Any = db_field.remote_field.model
        if model is Client and self.to_add:
            kwargs["queryset"] = access.clients_of(request.user, self.to_add)
        else:
            kwargs["queryset"] = visible_rows(request, self.admin_site, model)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """The client is chosen where there is but one."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        if self.client_path == "client":
            clients = access.clients_of(request.user, self.to_add or Role.MANAGER)[:2]
            initial |= {"client": clients[0].pk} if len(clients) == 1 else {}
        return initial

    def note(
        self, request: HttpRequest, verb: str, row: Any, changes: Mapping[str, tuple[Any, Any]] | None = None
    ) -> None:
        """A line in the audit trail: the user did this to the row."""
        user: Any = request.user
        audit_log.record(user, verb, row, self.client_id_of(row) if self.client_path else None, changes)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """What a form changed, as the trail tells it: field to [before, after]; what is typed unseen stays unseen."""
        changes: dict[str, tuple[Any, Any]] = {}
        for name in form.changed_data:
            if getattr(form.fields[name].widget, "input_type", "") == "password":
                changes[name] = (audit_log.HIDDEN, audit_log.HIDDEN)
            else:
                changes[name] = (form.initial.get(name), form.cleaned_data.get(name))
        return changes

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Into the trail."""
        self.note(request, "added", obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Into the trail, if anything changed."""
        if message:
            self.note(request, "changed", obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Any]) -> Any:
        """Into the trail."""
        for row in queryset:
            self.note(request, "deleted", row)

    def missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What Django answers for a row that does not exist, and so we for one of another client."""
        answer: HttpResponse = self._get_obj_does_not_exist_redirect(  # type: ignore[attr-defined]
            request, self.opts, object_id
        )
        return answer

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """What the audit trail says of the row."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not self.has_view_permission(request, row):
            return self.missing(request, object_id)
        of_row = urlencode({"object_type": self.opts.model_name, "object_id": str(row.pk)})
        return redirect(f"{reverse('admin:conversations_staffaction_changelist')}?{of_row}")


class ReadOnlyPage(Page):
    """Rows that only services write."""

    to_add: str | None = None
    to_change: str | None = None


def visible_rows(request: HttpRequest, site: Any, model: type[Model]) -> QuerySet[Any]:
    """The rows of the model that the user may see: those its own page shows. Without a page of ours, a superuser's."""
    page = site._registry.get(model)
    if isinstance(page, Page):
        return page.get_queryset(request)
    rows: QuerySet[Any] = model._default_manager.all()
    return rows if request.user.is_superuser else rows.none()
