"""The tables of teams and of saved views. An append of a message touches none of them."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from conversations.models.client import Client, Membership
from conversations.models.of_client import OfClient, SameClientKey

LONGEST_NAME = 60  # characters, of a team and of a view


class Team(models.Model):
    """Members of staff to whom conversations of a client are assigned together."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="teams", db_index=False)
    name = models.CharField(max_length=LONGEST_NAME, verbose_name=_("name"))
    is_default = models.BooleanField(
        _("default team"),
        default=False,
        db_default=False,
        help_text=_("It gets the client's conversations that need a person and are assigned to nobody."),
    )
    hands_out = models.BooleanField(
        _("round robin"),
        default=False,
        db_default=False,
        help_text=_("Its conversations that need a person are assigned to available members in turn."),
    )
    most_open = models.PositiveSmallIntegerField(
        _("limit"),
        default=5,
        db_default=5,
        validators=[MinValueValidator(1)],
        help_text=_("Round robin gives nothing to a member who has so many open conversations of the client."),
    )

    class Meta:
        db_table = "desk_teams"
        ordering = ["name"]
        verbose_name = _("team")
        verbose_name_plural = _("teams")
        constraints = [
            models.UniqueConstraint(
                name="one_team_of_a_name",
                fields=["client", "name"],
                violation_error_message=_("The client has a team of this name."),
            ),
            models.UniqueConstraint(
                name="one_default_team",
                fields=["client"],
                condition=models.Q(is_default=True),
                violation_error_message=_("The client has a default team already."),
            ),
            models.CheckConstraint(name="team_limit_allows_something", condition=models.Q(most_open__gte=1)),
        ]

    def __str__(self) -> str:
        return self.name


class TeamMember(models.Model):
    """A member of a team. `last_given_at` is when round robin last assigned a conversation of the team to them."""

    client = models.ForeignKey(
        Client, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False, editable=False
    )
    team = SameClientKey(Team, on_delete=models.CASCADE, related_name="members", db_index=False)
    membership = SameClientKey(
        Membership, on_delete=models.CASCADE, related_name="teams", db_index=False, verbose_name=_("member")
    )
    most_open = models.PositiveSmallIntegerField(
        _("limit"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("Empty: the team's limit."),
    )
    last_given_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "desk_team_members"
        # Used by the inbox: the teams of a person.
        indexes = [models.Index(name="teams_of_membership", fields=["client", "membership"])]
        verbose_name = _("team member")
        verbose_name_plural = _("team members")
        constraints = [
            models.UniqueConstraint(
                name="one_member_once",
                fields=["client", "team", "membership"],
                violation_error_message=_("This person is in the team already."),
            ),
            models.CheckConstraint(
                name="member_limit_allows_something",
                condition=models.Q(most_open__isnull=True) | models.Q(most_open__gte=1),
            ),
        ]

    def __str__(self) -> str:
        return str(self.membership.user)


class SavedView(OfClient):
    """The filters of the inbox under a name: a person's own, or shared with all staff of the client.

    `filters` are the parameters of the inbox's address that differ from the usual ones (services/desk/filters.py). They
    show the client's conversations alone.
    """

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, related_name="+", db_index=False
    )  # null: shared
    name = models.CharField(max_length=LONGEST_NAME)
    filters = models.JSONField(default=dict)

    class Meta:
        db_table = "desk_views"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(name="one_own_view_of_a_name", fields=["client", "owner", "name"]),
            models.UniqueConstraint(
                name="one_shared_view_of_a_name", fields=["client", "name"], condition=models.Q(owner__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_shared(self) -> bool:
        """Return whether all staff of the client see it."""
        return self.owner_id is None
