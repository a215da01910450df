"""Saved views: the filters of the inbox under a name, a person's own or shared with all staff of the client."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from conversations.models import Client, SavedView
from conversations.models.teams import LONGEST_NAME
from conversations.services.core.cluster import of_all, rows_of_clients
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.desk import filters as choices
from conversations.services.desk import inbox
from conversations.services.desk.filters import Filters
from conversations.services.desk.inbox import Tab
from conversations.services.desk.narrowing import narrowed_sql

MOST_VIEWS = 30  # of a person in a client, and as many shared ones
MOST_COUNTED = 100  # of a view; a longer list reads no further
COUNTED = (Tab.MINE, Tab.UNASSIGNED, Tab.ALL, Tab.TEAMS, Tab.SNOOZED)


def views_of(client_ids: Sequence[UUID], user_id: int) -> list[SavedView]:
    """Return the user's own views of the clients and the shared ones, by name."""
    theirs = SavedView.objects.filter(Q(owner=user_id) | Q(owner=None)).order_by("name", "pk").select_related("client")
    return of_all(lambda pk: theirs.filter(client__in=[pk] if pk else client_ids), client_ids)


def save(client: Client, owner_id: int | None, name: str, filters: Filters) -> SavedView:
    """Store the filters as a view of the client and return it; without an owner it is shared.

    Raises InvalidError or NotFoundError for filters that the client does not have, InvalidError for a blank or long
    name or one view too many, ConflictError (`name_taken`).
    """
    name = _name(name)
    choices.check(filters, client)
    if SavedView.objects.filter(client=client, owner=owner_id).count() >= MOST_VIEWS:
        raise InvalidError(_("There are %(most)s views already. Delete one first.") % {"most": MOST_VIEWS}, code="full")
    view = SavedView(client=client, owner_id=owner_id, name=name, filters=filters.parameters())
    return _stored(view)


def rename(view: SavedView, name: str) -> SavedView:
    """Give the view another name and return it. Raises InvalidError, ConflictError (`name_taken`)."""
    view.name = _name(name)
    return _stored(view)


def delete(view: SavedView) -> None:
    """Delete the view. Where it is deleted already, nothing changes."""
    SavedView.objects.filter(client=view.client_id, pk=view.pk).delete()


def _name(text: str) -> str:
    name = " ".join(text.replace("\x00", "").split())
    if not 1 <= len(name) <= LONGEST_NAME:
        raise InvalidError(_("A name has 1 to %(most)s characters.") % {"most": LONGEST_NAME}, code="no_such_name")
    return name


def _stored(view: SavedView) -> SavedView:
    try:
        with transaction.atomic():
            view.save()
    except IntegrityError:
        raise ConflictError(_("There is a view of this name already."), code="name_taken") from None
    return view


# --- counts -----------------------------------------------------------------------------------------------------------
_IN_TAB = " ".join(f"WHEN '{tab.value}' THEN {inbox.condition(tab)}" for tab in COUNTED)
_NARROWED = narrowed_sql("v.label", "v.team", "v.channel", "v.priority", "v.status", "v.assignee")

# $1 clients, $2 user, $3 to $11 a column each of the views. An open conversation is read from the index of open ones.
_COUNTS = f"""
    SELECT v.number, x.found
    FROM unnest($3::int[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::int[], $10::text[],
        $11::int[]) AS v (number, whose, tab, label, team, channel, priority, status, assignee)
    CROSS JOIN LATERAL (
        SELECT count(*) AS found FROM (
            SELECT 1 FROM conversations s
            LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
            WHERE s.client_id = ANY ($1::uuid[]) AND s.client_id = v.whose AND s.status IN ('active', 'stale')
              AND CASE v.tab {_IN_TAB} END AND {_NARROWED}
            LIMIT {MOST_COUNTED}) y) x"""


def counts(views: Sequence[SavedView], user_id: int) -> dict[int, int]:
    """Return by id how many open conversations the views show, MOST_COUNTED at most. One statement.

    Views of words, of mentions and of ended conversations are not counted.
    """
    read = [(view, choices.read(view.filters)) for view in views]
    counted = [(view, each) for view, each in read if each.tab in COUNTED and not each.words]
    if not counted:
        return {}
    lines = [
        (number, view.client_id, each.tab.value, *each.narrowing.values(user_id))
        for number, (view, each) in enumerate(counted)
    ]
    columns = [list(column) for column in zip(*lines, strict=True)]
    found = rows_of_clients(_COUNTS, sorted({view.client_id for view, _filters in counted}), user_id, *columns)
    sums: dict[int, int] = {}
    for number, count in found:
        pk = counted[number][0].pk
        sums[pk] = sums.get(pk, 0) + count
    return sums
