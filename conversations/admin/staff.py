"""Who works for a client, and (for superusers) who can sign in at all."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from conversations.admin import access
from conversations.admin.access import SUPERUSER, Role
from conversations.admin.base import ClientsOwn, Page
from conversations.admin.confirmed import confirmed
from conversations.admin.once import shown_once
from conversations.models import Membership
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import staff


class NewMemberForm(forms.ModelForm):  # type: ignore[type-arg]
    """A role for somebody new; a superuser may also choose somebody who is there already."""

    user_name = forms.CharField(
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        widget=UnfoldAdminTextInputWidget,
        help_text="A new user signs in with this name. The password is shown once, on the next page.",
    )

    class Meta:
        model = Membership
        fields = "__all__"  # noqa: DJ007 - the page says which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "user" in self.fields:
            self.fields["user"].required = self.fields["user_name"].required = False
            self.fields["user"].help_text = "Somebody who can sign in already; or name a new user below."

    def clean(self) -> dict[str, Any]:
        """Somebody new, or somebody who is there, and not both."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        name = cleaned.get("user_name")
        if "user_name" in self.errors or "user" in self.errors:
            return cleaned
        if bool(name) == bool(cleaned.get("user")):
            raise ValidationError("Choose a user, or name a new one.")
        if name and get_user_model().objects.filter(username=name).exists():
            self.add_error("user_name", "This user name is taken.")
        return cleaned


@admin.register(Membership)
class MembershipAdmin(Page):
    """People and their roles. A person without a role in any client sees nothing."""

    client_path = "client"
    to_delete = Role.MANAGER
    list_display = ["user", "client", "role", "sees_receipts", "last_sign_in"]
    list_filter = ["role", ("client", ClientsOwn)]
    list_select_related = ["user", "client"]
    search_fields = ["user__username"]
    ordering = ["user__username", "client__name"]
    autocomplete_fields = ["user"]
    actions_detail = ["new_password"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """A new member may be a new user."""
        return super().get_form(request, obj, change, **({} if obj else {"form": NewMemberForm}), **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Nobody below a superuser is offered users: they may be another client's."""
        if obj:
            return ["client", "user", "role", "sees_receipts", "last_sign_in"]
        return ["client", *(["user"] if request.user.is_superuser else []), "user_name", "role"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Only the role changes."""
        return ["client", "user", "last_sign_in"] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Somebody new is made by the service; the answer shows the password."""
        obj.password = ""
        if change or obj.user_id:
            super().save_model(request, obj, form, change)
            return
        made, obj.password = staff.create_staff(form.cleaned_data["user_name"], obj.client, obj.role)
        obj.pk, obj.user = made.pk, made.user

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The one page that ever shows the password."""
        if not obj.password:
            return super().response_add(request, obj, post_url_continue)
        return self._show(request, obj, obj.password)

    @confirmed(
        "New password",
        question="The person will need the new password to sign in; it is shown once, on the next page.",
        icon="lock_reset",
        path="password",
    )
    def new_password(self, request: HttpRequest, membership: Membership) -> HttpResponse:
        """Raises ConflictError for somebody who is more than this client's: a manager must not become them."""
        user = membership.user
        theirs = Membership.objects.filter(user=user)
        if user.is_superuser or not all(access.can(request.user, Role.MANAGER, each.client_id) for each in theirs):
            raise ConflictError("Only an administrator can give this person a new password.", code="not_yours")
        password = staff.renew_password(user)
        self.note(request, "renewed the password of", membership)
        return self._show(request, membership, password)

    def _show(self, request: HttpRequest, membership: Membership, password: str) -> HttpResponse:
        about = f"{membership.user} signs in with this password, and may then choose another in the menu at the name."
        return shown_once(self, request, membership, title="Password", about=about, secret=password)

    @admin.display(description="Last sign-in", ordering="user__last_login")
    def last_sign_in(self, membership: Membership) -> Any:
        """When the person signed in last."""
        return membership.user.last_login


admin.site.unregister(Group)
admin.site.unregister(User)


@admin.register(User)
class UsersPage(Page, UserAdmin):  # type: ignore[type-arg]
    """All who can sign in: superusers' own. Groups and Django's permissions play no part, so they are not shown."""

    to_add = to_change = SUPERUSER
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "is_staff", "is_superuser", "is_active", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active"]
    filter_horizontal = ()
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        ("May", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    readonly_fields = ["last_login", "date_joined"]
