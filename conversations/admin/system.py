"""Pages for superusers only: all users, and the tables of the task queue."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django_q.admin import FailAdmin, QueueAdmin, ScheduleAdmin, TaskAdmin
from django_q.models import Failure, OrmQ, Schedule, Success
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from conversations.admin.access import SUPERUSER
from conversations.admin.base import ClientScopedAdmin

admin.site.unregister(Group)
admin.site.unregister(User)


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
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    readonly_fields = ["last_login", "date_joined"]


class QueueTableAdmin(ClientScopedAdmin):
    """A table of django-q2. Its rows have no client, so only superusers see them."""

    add_role = None
    change_role = delete_role = SUPERUSER
    list_filter = ()


for model, theirs in {Success: TaskAdmin, Failure: FailAdmin, Schedule: ScheduleAdmin, OrmQ: QueueAdmin}.items():
    admin.site.unregister(model)
    admin.site.register(model, type(f"{model.__name__}Page", (QueueTableAdmin, theirs), {}))
