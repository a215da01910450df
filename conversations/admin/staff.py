"""The staff of a client: users with a role in it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from unfold.widgets import UnfoldAdminTextInputWidget

from conversations.admin import access, away
from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.models import Membership
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import staff
from conversations.words import lazy as _


class NewMemberForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a new member: a new user, or (for superusers) an existing one, with a role."""

    user_name = forms.CharField(
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        widget=UnfoldAdminTextInputWidget,
        help_text=_("A new user signs in with this name. The next page shows the password once."),
    )

    class Meta:
        model = Membership
        fields = "__all__"  # noqa: DJ007 - the page says which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "user" in self.fields:
            self.fields["user"].required = self.fields["user_name"].required = False
            self.fields["user"].help_text = gettext("Choose an existing user, or name a new one below.")

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse both a new and an existing user, or neither."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        name = cleaned.get("user_name")
        if "user_name" in self.errors or "user" in self.errors:
            return cleaned
        if bool(name) == bool(cleaned.get("user")):
            raise ValidationError(gettext("Choose a user, or name a new one."))
        if name and get_user_model().objects.filter(username=name).exists():
            self.add_error("user_name", gettext("This user name is taken."))
        return cleaned


@admin.register(Membership)
class MembershipAdmin(ClientScopedAdmin):
    """Staff and their roles. A user without a role in any client sees nothing."""

    client_path = "client"
    delete_role = Role.MANAGER
    list_display = ["user", "client", "role", "available", "sees_receipts", "last_sign_in"]
    list_filter = ["role", ("client", VisibleRowsFilter)]
    list_select_related = ["user", "client"]
    search_fields = ["user__username"]
    ordering = ["user__username", "client__name"]
    autocomplete_fields = ["user"]
    actions_detail = ["new_password", "give_back"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form class. A new member can be a new user."""
        return super().get_form(request, obj, change, **({} if obj else {"form": NewMemberForm}), **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields. Only superusers choose among users: a user may belong to another client."""
        if obj:
            return ["client", "user", "role", "sees_receipts", "given_by", "last_sign_in"]
        return ["client", *(["user"] if request.user.is_superuser else []), "user_name", "role"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed: client and user, once the membership exists, and a role that an
        identity provider gives."""
        return ["client", "user", "given_by", "last_sign_in", *(["role"] if obj.provider else [])] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the membership, or make a new user through the service. `response_add` shows the password."""
        obj.password = ""
        if change or obj.user_id:
            super().save_model(request, obj, form, change)
            if change and "role" in form.changed_data and obj.role == Membership.Role.VIEWER:
                away.note_absent(self, request, obj.user, [obj.client_id])
            return
        made, obj.password = staff.create_staff(form.cleaned_data["user_name"], obj.client, obj.role)
        obj.pk, obj.user = made.pk, made.user

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete the membership. What waits for the colleague goes back, unless the client says otherwise."""
        super().delete_model(request, obj)
        away.note_absent(self, request, obj.user, [obj.client_id], can_ask=False)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the memberships one by one."""
        for membership in queryset:
            self.delete_model(request, membership)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the only page that ever shows the password of a new user."""
        if not obj.password:
            return super().response_add(request, obj, post_url_continue)
        return self._show(request, obj, obj.password)

    @confirmed(
        _("New password"),
        question=_("The old password stops working. The next page shows the new one once."),
        icon="lock_reset",
        path="password",
    )
    def new_password(self, request: HttpRequest, membership: Membership) -> HttpResponse:
        """Renew the password and show it once.

        Raises ConflictError if the user is a superuser or belongs to a client that the manager does not manage: the
        manager could sign in as them.
        """
        user = membership.user
        memberships = Membership.objects.filter(user=user)
        if user.is_superuser or not all(access.can(request.user, Role.MANAGER, each.client_id) for each in memberships):
            raise ConflictError(gettext("Only an administrator can give this user a new password."), code="not_yours")
        password = staff.renew_password(user)
        self.record(request, "renewed the password of", membership)
        return self._show(request, membership, password)

    @confirmed(_("Give conversations back"), question=away.question_of, icon="assignment_return", path="give-back")
    def give_back(self, request: HttpRequest, membership: Membership) -> str:
        """Let the colleague be away, give back what waits for them, and say how much it was."""
        said = away.send_away(request, membership)
        self.record(request, "gave back the conversations of", membership)
        return said

    def _show(self, request: HttpRequest, membership: Membership, password: str) -> HttpResponse:
        about = gettext("%(user)s signs in with this password, and can then change it in the menu beside the name.") % {
            "user": membership.user
        }
        return show_once(self, request, membership, title=gettext("Password"), about=about, secret=password)

    @admin.display(description=_("Given by"))
    def given_by(self, membership: Membership) -> str:
        """Return who gave the role: a colleague, or the groups of an identity provider, which may take it away."""
        return (
            gettext("the groups at %(provider)s") % {"provider": membership.provider}
            if membership.provider
            else gettext("a colleague")
        )

    @admin.display(description=_("Available"), boolean=True, ordering="is_available")
    def available(self, membership: Membership) -> bool:
        """Return whether round robin may give them conversations."""
        return membership.is_available

    @admin.display(description=_("Last sign-in"), ordering="user__last_login")
    def last_sign_in(self, membership: Membership) -> Any:
        """Return the time of the last sign-in."""
        return membership.user.last_login
