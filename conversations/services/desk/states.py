"""The state of a conversation at the desk: who is responsible, how urgent it is, its labels, and snoozing it.

Each change is a row beside the conversation and a line of its ledger, in one transaction. Nothing of it silences the
assistant: that is a takeover. Setting what is set already changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext as _

from conversations.models import Client, Conversation, ConversationLabel, DeskState, Label, Membership, Team
from conversations.services.core.errors import InvalidError, NotFoundError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import lock, lock_open
from conversations.services.desk import teams

LONGEST_SNOOZE = timedelta(days=365)
MOST_LABELS = 200  # of a client
LONGEST_LABEL = 40  # characters
WRITERS = (Membership.Role.AGENT, Membership.Role.MANAGER)


def colleagues(client: Client | UUID) -> Any:
    """Return the users who may answer in the client's conversations, by name."""
    users = get_user_model().objects.filter(is_active=True, is_staff=True)
    members = Membership.objects.filter(client=client, role__in=WRITERS).values("user")
    return users.filter(pk__in=members).order_by("username")


def assign(
    conversation_id: UUID, user_id: int, *, team_id: int = 0, actor: Actor, now: datetime, client: Client
) -> str:
    """Make the user and the team responsible for the open conversation and return their names; 0 for nobody, no team.

    Raises NotFoundError if the user is no agent or manager of the client or it has no such team, InvalidError
    (`not_in_team`), ConflictError (`ended`).
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        user = colleagues(client).filter(pk=user_id).first() if user_id else None
        if user is None and user_id and user_id != actor.user_id:  # a superuser may have it without being a member
            raise NotFoundError(_("This colleague is no agent or manager of the client."))
        name = user.get_username() if user else (actor.name if user_id else "")
        team = Team.objects.filter(client=client, pk=team_id).first() if team_id else None
        if team_id and team is None:
            raise NotFoundError(_("The client has no such team."))
        if team and user_id and not teams.is_member(client, team_id, user_id):
            said = _("%(name)s is no member of %(team)s.") % {"name": name, "team": team}
            raise InvalidError(said, code="not_in_team")
        put(conversation, user_id or None, name, team, actor)
    return responsible(name, team)


def put(conversation: Conversation, user_id: int | None, name: str, team: Team | None, actor: Actor) -> None:
    """Make the user and the team responsible for the locked conversation. Where they are already, nothing changes."""
    team_id = team.pk if team else None
    if _set(conversation, assignee_id=user_id, team_id=team_id):
        cause = responsible(name, team) or "nobody"
        about: dict[str, Any] = {"team": team.pk, "team_name": team.name} if team else {}
        record(conversation, "assigned_to", actor, cause=cause, user=user_id, **about)


def responsible(name: str, team: Team | None) -> str:
    """Return the names of whoever is responsible: "max", "Support", "max of Support", or ''."""
    return f"{name} of {team}" if name and team else name or (team.name if team else "")


def set_priority(conversation_id: UUID, priority: int, *, actor: Actor, now: datetime, client: Client) -> None:
    """Set the priority. Raises InvalidError for one that does not exist."""
    if priority not in DeskState.Priority.values:
        raise InvalidError(_("There is no such priority."), code="no_such_priority")
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        if _set(conversation, priority=priority):
            record(conversation, "prioritised", actor, cause=str(DeskState.Priority(priority).label).lower())


def snooze(conversation_id: UUID, until: datetime, *, actor: Actor, now: datetime, client: Client) -> None:
    """Take the open conversation out of sight until a time, or until the person writes.

    Raises InvalidError if the time is past or too far away, ConflictError (`ended`).
    """
    if not now < until <= now + LONGEST_SNOOZE:
        raise InvalidError(_("Choose a time within the next year."), code="no_such_time")
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        if _set(conversation, snoozed_until=until, snoozed_sequence=conversation.inbound_sequence):
            record(conversation, "snoozed", actor, until=until.isoformat())


def wake(conversation_id: UUID, *, actor: Actor, now: datetime, client: Client) -> None:
    """End a snooze. Where there is none, nothing changes."""
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        found = DeskState.objects.filter(client=client, conversation=conversation, snoozed_until__isnull=False)
        if found.update(snoozed_until=None, snoozed_sequence=None):
            record(conversation, "woken", actor)


def add_label(conversation_id: UUID, name: str, *, actor: Actor, now: datetime, client: Client) -> Label:
    """Put the label on the conversation and return it. It is made if the client has none of this name.

    Raises InvalidError for a name without letters, a long one, or one label too many.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= LONGEST_LABEL:
        raise InvalidError(_("A label has 1 to %(most)s characters.") % {"most": LONGEST_LABEL}, code="no_such_label")
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        label = Label.objects.filter(client=client, name__iexact=name).first()
        if label is None and Label.objects.filter(client=client).count() >= MOST_LABELS:
            raise InvalidError(
                _("The client has %(most)s labels already. Choose one of them.") % {"most": MOST_LABELS},
                code="too_many",
            )
        if label is None:
            colour = Label.COLOURS[sum(name.encode()) % len(Label.COLOURS)]
            label, _was_made = Label.objects.get_or_create(client=client, name=name, defaults={"colour": colour})
        _row, is_new = ConversationLabel.objects.get_or_create(client=client, conversation=conversation, label=label)
        if is_new:
            record(conversation, "labelled", actor, cause=label.name)
    return label


def remove_label(conversation_id: UUID, label_id: int, *, actor: Actor, now: datetime, client: Client) -> None:
    """Take the label off the conversation. Where it is not on it, nothing changes."""
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        found = ConversationLabel.objects.filter(client=client, conversation=conversation, label=label_id)
        label = found.select_related("label").first()
        if label:
            found.delete()
            record(conversation, "unlabelled", actor, cause=label.label.name)


def _set(conversation: Conversation, **values: Any) -> bool:
    """Set fields of the locked conversation's state and return whether any changed."""
    state, _was_made = DeskState.objects.get_or_create(client_id=conversation.client_id, conversation=conversation)
    if all(getattr(state, name) == value for name, value in values.items()):
        return False
    DeskState.objects.filter(client=conversation.client_id, pk=state.pk).update(**values)
    return True
