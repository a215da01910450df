"""The base of all admin pages: a user sees the rows of their own clients and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.admin import RelatedFieldListFilter
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext

from conversations.admin import access
from conversations.admin.access import Role
from conversations.models import Client
from conversations.models.of_client import OfClient
from conversations.services.core import audit_log
from conversations.words import lazy as _

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin  # unfold's has no types; it is this one with more attributes
else:
    from unfold.admin import ModelAdmin


class Breadcrumb:
    """The last breadcrumb of a page that belongs to a row, with a title instead of the row's name.

    unfold's header expects the row itself and reads these attributes of it.
    """

    def __init__(self, row: Model, title: str) -> None:
        self.pk, self._meta, self._title = row.pk, row._meta, title

    def __str__(self) -> str:
        return self._title


class VisibleRowsFilter(RelatedFieldListFilter):
    """A list filter by a related row that offers only the rows that the user may see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        """Return the related rows that the user may see, as choices."""
        visible = visible_rows(request, model_admin.admin_site, field.remote_field.model)
        ordering = self.field_admin_ordering(field, request, model_admin)
        return field.get_choices(include_blank=False, ordering=ordering, limit_choices_to={"pk__in": visible})


class ClientScopedAdmin(ModelAdmin):  # type: ignore[type-arg]
    """The admin pages of one table, limited to the user's clients.

    client_path     lookup from a row to its client: "client", "conversation__client", or "pk" if the row is the client.
                    Empty: the rows have no client, and only superusers see them.
    view_role, add_role, change_role, delete_role
                    the role that is needed in the row's client, or SUPERUSER. None: nobody may, not even a superuser.
    empty_message   what an empty list says

    Django's own permissions are not used. A row of another client is answered as if it did not exist: lists, forms,
    histories, autocompletes and actions all read through `get_queryset`, and choices of related rows through the
    `get_queryset` of the related table's admin. Additions, changes and deletions are recorded in the audit log
    (services/core/audit_log.py), which also serves as the history of a row.
    """

    client_path = ""
    empty_message = _("Nothing here yet.")
    view_role: str | None = Role.VIEWER
    add_role: str | None = Role.MANAGER
    change_role: str | None = Role.MANAGER
    delete_role: str | None = None

    show_full_result_count = False
    list_per_page = 50
    list_fullwidth = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the user's clients, or all rows for a superuser."""
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        if not self.client_path:
            return rows.none()
        return rows.filter(**{f"{self.client_path}__in": access.client_ids_of(request.user)})

    def to_look_up(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the same rows, to be found by their keys.

        A client's keys begin with the client. A superuser's row is looked for among the rows of each client in turn.
        """
        rows = self.get_queryset(request)
        if request.user.is_superuser and issubclass(self.model, OfClient):
            return rows.filter(client__in=Client.objects.values("pk"))
        return rows

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row with this key, or None, as Django does."""
        field: Any = self.opts.pk if from_field is None else self.opts.get_field(from_field)
        try:
            return self.to_look_up(request).get(**{field.name: field.to_python(object_id)})
        except (self.model.DoesNotExist, ValidationError, ValueError):
            return None

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list with its message for the empty case. unfold's template of the rows receives nothing else."""
        shown: Any = super().get_changelist_instance(request)
        shown.is_narrowed = any(request.GET.values())
        shown.empty_message = self.empty_message_for(request, is_narrowed=shown.is_narrowed)
        shown.can_add = self.has_add_permission(request)
        return shown

    def empty_message_for(self, request: HttpRequest, *, is_narrowed: bool) -> str:
        """Return what the list says if it is empty. is_narrowed: a search or a filter is set."""
        return gettext("Nothing matches.") if is_narrowed else self.empty_message

    def client_id_of(self, row: Any) -> UUID | None:
        """Return the id of the row's client, or None if the row has no client."""
        *way, last = self.client_path.split("__")
        for name in way:
            row = getattr(row, name)
        found: UUID | None = row.pk if last == "pk" else getattr(row, f"{last}_id")
        return found

    def has_role(self, request: HttpRequest, role: str | None, row: Any = None) -> bool:
        """Return whether the user has the role in the row's client. Without a row: in any client."""
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
        """Return whether the navigation shows the table."""
        return self.has_role(request, self.view_role)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may read the row."""
        return self.has_role(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add rows."""
        return self.has_role(request, self.add_role)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may edit the row."""
        return self.has_role(request, self.change_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Return whether the user may delete the row."""
        return self.has_role(request, self.delete_role, obj)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        """Return a field that offers and accepts only rows that the user may see.

        As a client it accepts only one in which the user may add rows.
        """
        model: Any = db_field.remote_field.model
        if model is Client and self.add_role:
            kwargs["queryset"] = access.clients_of(request.user, self.add_role)
        else:
            kwargs["queryset"] = visible_rows(request, self.admin_site, model)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the initial values. The client is chosen already if the user has only one."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        if self.client_path == "client":
            clients = access.clients_of(request.user, self.add_role or Role.MANAGER)[:2]
            initial |= {"client": clients[0].pk} if len(clients) == 1 else {}
        return initial

    def record(
        self, request: HttpRequest, verb: str, row: Any, changes: Mapping[str, tuple[Any, Any]] | None = None
    ) -> None:
        """Record in the audit log that the user did this to the row.

        verb: in the past tense ("revoked"). changes: field name to the values before and after.
        """
        user: Any = request.user
        audit_log.record(user, verb, row, self.client_id_of(row) if self.client_path else None, changes)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Return the changed fields with their values before and after. Values of password fields are hidden."""
        changes: dict[str, tuple[Any, Any]] = {}
        for name in form.changed_data:
            if getattr(form.fields[name].widget, "input_type", "") == "password":
                changes[name] = (audit_log.HIDDEN, audit_log.HIDDEN)
            else:
                changes[name] = (form.initial.get(name), form.cleaned_data.get(name))
        return changes

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record the addition in the audit log instead of Django's own log."""
        self.record(request, "added", obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record the change in the audit log instead of Django's own log, if anything changed."""
        if message:
            self.record(request, "changed", obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Any]) -> Any:
        """Record the deletions in the audit log instead of Django's own log."""
        for row in queryset:
            self.record(request, "deleted", row)

    def row_not_found(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return Django's answer for a row that does not exist. A row of another client gets the same answer."""
        answer: HttpResponse = self._get_obj_does_not_exist_redirect(  # type: ignore[attr-defined]
            request, self.opts, object_id
        )
        return answer

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Redirect to the audit log, narrowed down to the row."""
        row = self.get_object(request, unquote(object_id))
        if row is None or not self.has_view_permission(request, row):
            return self.row_not_found(request, object_id)
        of_row = urlencode({"object_type": self.opts.model_name, "object_id": str(row.pk)})
        return redirect(f"{reverse('admin:conversations_staffaction_changelist')}?{of_row}")


class ReadOnlyAdmin(ClientScopedAdmin):
    """The admin pages of a table that only services write."""

    add_role: str | None = None
    change_role: str | None = None


def visible_rows(request: HttpRequest, site: Any, model: type[Model]) -> QuerySet[Any]:
    """Return the rows of the model that the user may see.

    These are the rows that the model's own admin shows. Without an admin of ours, only superusers see rows.
    """
    admin = site._registry.get(model)
    if isinstance(admin, ClientScopedAdmin):
        return admin.get_queryset(request)
    rows: QuerySet[Any] = model._default_manager.all()
    return rows if request.user.is_superuser else rows.none()
