"""The set-up page of teams, with their members."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, ForeignKey, QuerySet
from django.forms import BaseInlineFormSet, ModelChoiceField
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline

from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin, VisibleRowsFilter
from conversations.models import Membership, Team, TeamMember
from conversations.services.desk import states, teams


class MemberChoice(ModelChoiceField):  # type: ignore[type-arg]
    """A choice of memberships by the names of their users."""

    def label_from_instance(self, obj: Any) -> str:
        """Return the user's name, and their full name where it is known."""
        name, full = obj.user.get_username(), obj.user.get_full_name()
        return f"{name} ({full})" if full else str(name)


class MemberFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """The lines of members. Each is in the team once, also where two colleagues add the same person at once."""

    def clean(self) -> None:
        """Refuse a person who is in the team already."""
        super().clean()
        team = self.instance
        list(Team.objects.filter(client=team.client_id, pk=team.pk).select_for_update())  # one change at a time
        known = set(TeamMember.objects.filter(client=team.client_id, team=team.pk).values_list("membership", flat=True))
        for form in self.forms:
            membership = form.cleaned_data.get("membership") if hasattr(form, "cleaned_data") else None
            if membership is None or form.instance.pk or form in self.deleted_forms:
                continue
            if membership.pk in known:
                raise ValidationError(_("%(name)s is in the team already.") % {"name": membership.user})
            known.add(membership.pk)


class MemberInline(TabularInline):  # type: ignore[misc]
    """The members of a team, on its page. Who may change the team may change them."""

    model = TeamMember
    formset = MemberFormSet
    fields = ["membership", "most_open"]
    extra = 1
    hide_title = True
    team: Team | None = None
    verbose_name_plural = _("Members")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the members of this team with their users."""
        found: QuerySet[Any] = super().get_queryset(request)
        return found.select_related("membership__user").order_by("membership__user__username")

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Return the formset class of this team."""
        self.team = obj
        return super().get_formset(request, obj, **kwargs)

    def formfield_for_foreignkey(self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any) -> Any:
        """Return the field. Members are agents and managers of the team's client."""
        if db_field.name == "membership":
            client_id = self.team.client_id if self.team else None
            found = Membership.objects.filter(client=client_id, role__in=states.WRITERS)
            kwargs["queryset"] = found.select_related("user").order_by("user__username")
            kwargs["form_class"] = MemberChoice
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the field, without the links to add or change memberships."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        for link in ("add", "change", "delete", "view"):
            if hasattr(field.widget, f"can_{link}_related"):
                setattr(field.widget, f"can_{link}_related", False)
        return field

    def _may(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.admin_site._registry[Team].has_change_permission(request, obj))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may read the team."""
        return bool(self.admin_site._registry[Team].has_view_permission(request, obj))

    has_add_permission = has_change_permission = has_delete_permission = _may


@admin.register(Team)
class TeamAdmin(ClientScopedAdmin):
    """Teams. Managers make them and choose their members."""

    client_path = "client"
    delete_role: str | None = Role.MANAGER
    empty_message: Any = _("There is no team yet. Conversations are assigned to teams in the inbox, or by round robin.")
    list_display = ["name", "client", "is_default", "hands_out", "most_open", "member_count"]
    list_filter = [("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["name"]
    fields = ["client", "name", "is_default", "hands_out", "most_open"]
    inlines = [MemberInline]

    def get_queryset(self, request: Any) -> Any:
        """Return the rows with the number of members of each."""
        return super().get_queryset(request).annotate(members_in_it=Count("members"))

    def get_inline_instances(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the list of members, once the team exists: its client decides who can be one."""
        return super().get_inline_instances(request, obj) if obj else []

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[str]:
        """Return the client, once the row exists."""
        return ["client"] if obj else []

    @admin.display(description=_("Members"), ordering="members_in_it")
    def member_count(self, team: Any) -> int:
        """Return the number of members."""
        return int(team.members_in_it)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Return what changed, of the members too."""
        changes: dict[str, tuple[Any, Any]] = super().construct_change_message(request, form, formsets, add)
        for formset in formsets or ():
            for member in formset.new_objects:
                changes[f"member {member}"] = ("", member.most_open or "added")
            for member, names in formset.changed_objects:
                changes[f"member {member}"] = ("changed", {name: getattr(member, name) for name in names})
            for member in formset.deleted_objects:
                changes[f"member {member}"] = ("removed", "")
        return changes

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete the team; its conversations stay with whoever is responsible for them."""
        teams.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete the teams one by one."""
        for team in queryset:
            teams.delete(team)
