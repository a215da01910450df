"""Pages for superusers only: all users, their accounts at identity providers, and the tables of the task queue."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.translation import gettext
from django_q.admin import FailAdmin, QueueAdmin, ScheduleAdmin, TaskAdmin
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from conversations.admin import away
from conversations.admin.access import SUPERUSER
from conversations.admin.base import ClientScopedAdmin
from conversations.admin.confirmation import confirmed
from conversations.services.desk import giving_back
from conversations.services.tenants import second_factor
from conversations.words import lazy as _

# Second factors are secrets, identity providers are in the environment, and the rest is not used.
for unused in (Group, User, Authenticator, EmailAddress, SocialAccount, SocialApp, SocialToken):
    admin.site.unregister(unused)


@admin.register(User)
class SystemUserAdmin(ClientScopedAdmin, UserAdmin):  # type: ignore[type-arg]
    """All users who can sign in. Groups and Django's permissions are not used, so they are not shown."""

    add_role = change_role = SUPERUSER
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "is_staff", "is_superuser", "is_active", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active"]
    filter_horizontal = ()
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        (_("Permissions"), {"fields": ["is_active", "is_staff", "is_superuser"]}),
        (_("Dates"), {"fields": ["last_login", "date_joined"]}),
    ]
    readonly_fields = ["last_login", "date_joined"]
    actions_detail = ["remove_second_factor"]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save the user. What waits for one who is let in no more goes back, where their clients say so."""
        super().save_model(request, obj, form, change)
        is_out = not (obj.is_active and obj.is_staff)
        if change and is_out and {"is_active", "is_staff"} & set(form.changed_data):
            away.note_absent(self, request, obj, giving_back.clients_of(obj.pk))

    @confirmed(
        _("Remove the second factor"),
        question=_(
            "For a user who has lost it. The authenticator app, the passkeys and the recovery codes are accepted"
            " no more. Where a client requires a second factor, the user sets up a new one at the next request."
        ),
        icon="phonelink_erase",
        path="second-factor",
        destroys=True,
    )
    def remove_second_factor(self, request: HttpRequest, user: User) -> str:
        """Remove the user's second factors, and return the sentence that says so."""
        if not second_factor.remove(user):
            return gettext("%(user)s has no second factor.") % {"user": user}
        self.record(request, "removed the second factor of", user)
        return gettext("The second factor of %(user)s is removed. Make sure that it is %(user2)s who asked for it.") % {
            "user": user,
            "user2": user,
        }


@admin.register(SocialAccount)
class LinkedAccountAdmin(ClientScopedAdmin):
    """Users' accounts at identity providers. To delete one ends the sign-in by it, and deletes no user."""

    add_role = change_role = None
    delete_role = SUPERUSER
    empty_message = _("Nobody has signed in by an identity provider yet.")
    list_display = ["user", "provider", "uid", "last_login"]
    list_filter = ["provider"]
    list_select_related = ["user"]
    search_fields = ["user__username", "uid"]
    ordering = ["user__username", "provider"]
    fields = ["user", "provider", "uid", "date_joined", "last_login"]


class QueueTableAdmin(ClientScopedAdmin):
    """A table of django-q2. Its rows have no client, so only superusers see them."""

    add_role = None
    change_role = delete_role = SUPERUSER
    list_filter = ()


for model, theirs in {Success: TaskAdmin, Failure: FailAdmin, Schedule: ScheduleAdmin, OrmQ: QueueAdmin}.items():
    admin.site.unregister(model)
    admin.site.register(model, type(f"{model.__name__}Page", (QueueTableAdmin, theirs), {}))
