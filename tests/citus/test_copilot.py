"""The copilot while a server of the cluster is away: the others' users ask, and read their replies along."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Assistant, Client
from conversations.services.copilot import turns
from conversations.services.copilot.feed import Feed, Reader, ReadPosition, ReplyPart
from conversations.services.copilot.turns import UserMessage
from conversations.services.replies import leases
from conversations.services.replies.streaming_writer import NewText, store_deltas
from tests.citus.places import ONLY_IN_CLUSTER, away
from tests.copilot.members import as_user
from tests.copilot.reading import user

pytestmark = [*ONLY_IN_CLUSTER, pytest.mark.django_db(transaction=True)]


def test_the_others_ask_and_read_their_replies_along(
    both: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    Assistant.objects.update(in_copilot=True)
    users = [user(each.sub_domain, each) for each in both]
    for who in users:
        turns.ask(as_user(who), UserMessage("Hello"), timezone.now())
    claimed: dict[Any, leases.StreamedTurn] = {
        each.login_id: each for each in leases.claim_streamed(timezone.now(), 10)
    }
    here, there = (claimed[who.pk] for who in users)
    readers = [Reader(claimed[who.pk].turn_id, who.pk, ReadPosition()) for who in users]
    feed = Feed()
    monkeypatch.setattr(feed, "_readers", set(readers))
    with away(both[1]):
        leases.renew_streamed([here, there], timezone.now())
        assert leases.stopped_or_lost([here, there]) == (set(), set())
        store_deltas([NewText(each, 0, "Then") for each in (here, there)])
        feed._give_updates()
        assert [each.take() for each in readers] == [ReplyPart(1, 0, "Then"), None]
        assert turns.ask(as_user(users[0]), UserMessage("And now?"), timezone.now()).turn
    store_deltas([NewText(there, 0, "At last")])
    feed._give_updates()
    assert readers[1].take() == ReplyPart(1, 0, "At last")
