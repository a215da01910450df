"""Live news of the desk: what a watcher is told, and of whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Client, Conversation, Presence
from conversations.services.core.ledger import Actor
from conversations.services.desk import live, notes, own, presence, states
from conversations.services.desk.live import LiveFeed, News, Watcher
from conversations.services.transitions import takeover
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.staff import signed_in, staff

pytestmark = pytest.mark.django_db

Ask = Callable[[], News | None]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> LiveFeed:
    """A feed without a thread: it asks when the test says so."""
    feed = LiveFeed()
    feed._thread = object()  # type: ignore[assignment]
    return feed


@pytest.fixture
def agnes(shop: Client) -> Any:
    """An agent of the shop."""
    return staff("agnes", shop=Role.AGENT)


@pytest.fixture
def watcher(feed: LiveFeed, agnes: Any, shop: Client) -> Iterator[Watcher]:
    """Agnes's browser, which was told what there was."""
    watcher = feed.watch(agnes.pk, [shop.pk])
    told(feed, watcher)
    yield watcher
    feed.leave(watcher)


def told(feed: LiveFeed, watcher: Watcher) -> News | None:
    """Return what the watcher is told now."""
    feed._tell_news()
    return watcher.take()


def test_a_message_is_told_once_with_its_conversation(door: Door, feed: LiveFeed, watcher: Watcher) -> None:
    door.says("Hello", user_id="ann")
    news = told(feed, watcher)
    assert news is not None
    assert (news.changed, news.alerts) == ([Conversation.objects.get().pk], [])
    assert told(feed, watcher) is None
    reply_to_all()
    assert told(feed, watcher) is not None
    assert told(feed, watcher) is None


def test_whoever_has_it_is_alerted_and_all_are_where_nobody_has_it(
    door: Door, feed: LiveFeed, watcher: Watcher, agnes: Any, shop: Client
) -> None:
    other = feed.watch(staff("max", shop=Role.AGENT).pk, [shop.pk])
    door.says("Hello", user_id="ann", name="Ann")
    conversation = Conversation.objects.get()
    takeover.take_over(conversation.pk, actor=Actor("staff", "agnes", agnes.pk), now=timezone.now())
    told(feed, watcher), other.take()
    door.says("Still there?")
    mine, theirs = told(feed, watcher), other.take()
    assert mine is not None
    assert theirs is not None
    assert (mine.alerts, theirs.alerts) == ([(conversation.pk, "Ann")], [])
    takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now(), from_colleague=True)
    told(feed, watcher), other.take()
    door.says("Anybody?")
    mine, theirs = told(feed, watcher), other.take()
    assert mine is not None
    assert theirs is not None
    assert mine.alerts == theirs.alerts == [(conversation.pk, "Ann")]
    assert mine.counts is None, "they did not change"


def test_counts_follow_what_waits_what_one_has_and_what_mentions_one(
    door: Door, feed: LiveFeed, watcher: Watcher, agnes: Any, shop: Client
) -> None:
    door.says("Hello", user_id="ann")
    conversation = Conversation.objects.get()
    by: dict[str, Any] = {"actor": Actor("staff", "max"), "now": timezone.now(), "client": shop}
    counted = []
    for change in (
        lambda: takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now()),
        lambda: states.assign(conversation.pk, agnes.pk, **by),
        lambda: notes.add_note(conversation.pk, "@agnes", **by),
        lambda: states.snooze(conversation.pk, timezone.now() + timedelta(hours=1), **by),
    ):
        change()
        news = told(feed, watcher)
        assert news is not None
        assert news.counts is not None
        counted.append(tuple(news.counts.values()))
    assert counted == [(0, 1, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)]
    own.note_seen(shop.pk, conversation.pk, agnes.pk, 1, timezone.now())
    feed._counted_at = 0.0
    news = told(feed, watcher)
    assert news is not None
    assert news.counts == {"mine": 0, "unassigned": 0, "mentions": 0}


def test_a_delivery_is_told_while_the_conversation_is_open_somewhere(
    door: Door, feed: LiveFeed, watcher: Watcher, agnes: Any, shop: Client
) -> None:
    door.says("Hello")
    reply_to_all()
    conversation = Conversation.objects.get()
    presence.note(shop.pk, conversation.pk, agnes.pk, is_typing=False, now=timezone.now())
    told(feed, watcher)
    send_all()
    news = told(feed, watcher)
    assert news is not None
    assert news.changed == [conversation.pk]


def test_who_else_is_there_is_told_to_those_who_are(
    door: Door, feed: LiveFeed, watcher: Watcher, agnes: Any, shop: Client
) -> None:
    max_ = staff("max", shop=Role.AGENT)
    door.says("Hello")
    conversation = Conversation.objects.get()
    told(feed, watcher)
    presence.note(shop.pk, conversation.pk, max_.pk, is_typing=True, now=timezone.now())
    assert told(feed, watcher) is None, "agnes is elsewhere"
    presence.note(shop.pk, conversation.pk, agnes.pk, is_typing=False, now=timezone.now())
    news = told(feed, watcher)
    assert news is not None
    assert news.present == {conversation.pk: [("max", True)]}
    Presence.objects.filter(user=max_).update(seen_at=timezone.now() - timedelta(minutes=1))
    news = told(feed, watcher)
    assert news is not None
    assert news.present == {}


def test_nothing_of_another_client_is_told(feed: LiveFeed, watcher: Watcher, neighbour: Client, agnes: Any) -> None:
    theirs = factories.ConversationFactory(client=neighbour, needs_staff_since=timezone.now())
    theirs.chunks.create(position=1, role="user", content="Hello")
    presence.note(neighbour.pk, theirs.pk, agnes.pk, is_typing=True, now=timezone.now())
    other = feed.watch(agnes.pk + 1, [neighbour.pk])
    feed._tell_news()
    assert watcher.take() is None
    assert other.take() is not None


def test_a_slow_reader_gets_what_it_missed_joined_and_too_much_as_everything(
    door: Door, feed: LiveFeed, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        door.says("Hello", user_id=f"user-{number}")
        feed._tell_news()
    monkeypatch.setattr(live, "MOST_IDS", 3)
    news = watcher.take()
    assert news is not None
    assert len(news.changed or ()) == 3
    for number in range(4):
        door.says("Again", user_id=f"user-{number}")
    news = told(feed, watcher)
    assert news is not None
    assert news.changed is None


def test_news_costs_the_same_however_many_watch_and_however_much_is_new(
    door: Door, feed: LiveFeed, watcher: Watcher, shop: Client
) -> None:
    door.says("Hello", user_id="first")
    costs = []
    for count in (1, 20):
        for number in range(count):
            door.says("Hello", user_id=f"user-{count}-{number}")
            feed.watch(number, [shop.pk])
        with CaptureQueriesContext(connection) as seen:
            feed._tell_news()
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 6


def test_a_sign_of_presence_needs_a_role_and_an_own_conversation(door: Door, shop: Client, neighbour: Client) -> None:
    door.says("Hello")
    ours, theirs = Conversation.objects.get(), factories.ConversationFactory(client=neighbour)
    http = signed_in(staff("vera", shop=Role.VIEWER))
    assert http.post(f"/admin/inbox/{theirs.pk}/presence/", {"here": "yes"}).status_code == 404
    assert http.post(f"/admin/inbox/{ours.pk}/presence/", {"here": "yes", "typing": "yes"}).status_code == 204
    assert Presence.objects.get().typing_until is not None
    assert http.post(f"/admin/inbox/{ours.pk}/presence/", {"here": "no"}).status_code == 204
    assert not Presence.objects.exists()
    assert signed_in(staff("nobody")).get("/admin/inbox/live/").status_code == 403
