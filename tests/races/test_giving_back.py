"""A colleague goes away while round robin hands out, colleagues take and customers write: nothing stays with them."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Client, Conversation, ConversationEvent, DeskState
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import Actor
from conversations.services.desk import giving_back, round_robin, teams
from conversations.services.transitions import takeover
from tests.conversations.staff import staff
from tests.conversations.test_teams import team_of
from tests.races.test_round_robin import waiting
from tests.races.threads import eventually, outcomes, shuffled
from tests.sizes import times

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("_again", range(times(3, 30)))
def test_whoever_goes_away_is_given_nothing_and_keeps_nothing(shop: Client, _again: int) -> None:
    agnes, max_ = (staff(name, shop=Role.AGENT) for name in ("agnes", "max"))
    for each in (agnes, max_):
        teams.set_available(each.pk, True)
    team_of(shop, "Support", agnes, max_, is_default=True, hands_out=True, most_open=50)
    conversations = waiting(shop, 12)

    def go_away() -> int:
        teams.set_available(agnes.pk, False)
        by = Actor("staff", "agnes", agnes.pk)
        return giving_back.give_back(shop.pk, agnes.pk, actor=by, now=timezone.now())

    def take(pk: Any) -> Any:
        return takeover.take_over(pk, actor=Actor("staff", "max", max_.pk), now=timezone.now(), from_colleague=True)

    jobs: list[Any] = [lambda pk=each.pk: take(pk) for each in conversations[:3]]
    for result in outcomes(shuffled([*jobs, go_away, go_away, *[round_robin.hand_out] * 5])):
        assert not isinstance(result, Exception) or isinstance(result, DomainError), repr(result)
    eventually(lambda: round_robin.hand_out() == 0, "all is handed out")
    left = DeskState.objects.filter(assignee=agnes, conversation__taken_over_name="")
    assert not left.exists(), "she was given one after she went away, or kept it"
    assert not Conversation.objects.filter(taken_over_by=agnes).exists()
    for each in conversations[:3]:
        assert Conversation.objects.get(pk=each.pk).taken_over_by_id == max_.pk, "who took it keeps it"
    back = ConversationEvent.objects.filter(kind="assigned_to", actor_name="agnes")
    told = list(back.values_list("conversation", flat=True))
    assert len(told) == len(set(told)), "the same was given back twice"
