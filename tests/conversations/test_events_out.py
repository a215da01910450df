"""Events out: posted, signed, in order for each conversation, at least once, whatever the receiver does."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, EventDelivery, EventEndpoint
from conversations.services.core.ledger import SYSTEM
from conversations.services.events import deliveries, endpoints, sender
from conversations.services.events.numbering import number_all
from conversations.services.events.sender import EventSender
from conversations.services.retention import erasure
from tests import factories
from tests.fakes.receiver import FakeReceiver
from tests.races.threads import eventually

Make = Callable[..., tuple[FakeReceiver, EventEndpoint]]


@pytest.fixture(autouse=True)
def _quick(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.EVENT_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    settings.DISPATCH_POLL_SECONDS = 0.05
    monkeypatch.setattr(deliveries, "WAITS", (0.05, 0.1, 0.2))
    monkeypatch.setattr(deliveries, "SHORTEST_WAIT", timedelta(seconds=0.2))
    monkeypatch.setattr(sender, "SECONDS", 1.0)


@contextmanager
def sending() -> Iterator[EventSender]:
    """A sender at work, which ends with the block."""
    running = EventSender(patience=2)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.join()


@pytest.fixture
def receiver() -> Iterator[Make]:
    """Make an endpoint of a client, and the program behind it."""
    opened: list[AbstractContextManager[Any]] = []

    def make(client: Client, behave: Any = None, path: str = "/events", **more: Any) -> Any:
        fake = FakeReceiver([], behave)
        opened.append(fake)
        endpoint, secret = endpoints.create_endpoint(client, fake.url + path, **more)
        fake.secrets.append(secret)
        return fake, endpoint

    yield make
    for each in opened:
        each.__exit__(None, None, None)


def conversations_of(client: Client, count: int) -> list[Conversation]:
    return [factories.ConversationFactory(client=client) for _ in range(count)]


def say(conversations: list[Conversation], rounds: int, text: str = "") -> None:
    """Each of the conversations gets so many chunks, in turns."""
    for _ in range(rounds):
        for each in conversations:
            each.last_position += 1
        Chunk.objects.bulk_create(
            Chunk(conversation=each, position=each.last_position, role="user", content=text or str(each.last_position))
            for each in conversations
        )


def texts_by_conversation(fake: FakeReceiver) -> dict[str, list[str]]:
    """The texts that were taken, each the first time, in the order in which they came."""
    found: dict[str, list[str]] = {}
    seen = set()
    for each in list(fake.taken):
        if each.event["id"] not in seen and "message" in each.event["data"]:
            seen.add(each.event["id"])
            found.setdefault(each.event["data"]["conversation_id"], []).append(each.event["data"]["message"]["content"])
    return found


# --- the way of an event ----------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_an_event_is_posted_signed_with_what_happened(shop: Client, receiver: Make) -> None:
    fake, endpoint = receiver(shop)
    [conversation] = conversations_of(shop, 1)
    say([conversation], 1, "Hello")
    with sending():
        eventually(lambda: fake.taken, "the event comes")
        eventually(lambda: EventDelivery.objects.filter(status="delivered").exists(), "its success is noted")
    [taken] = fake.taken
    assert (taken.signed_by, fake.unsigned) == (1, 0)
    assert taken.event["type"] == "message.in"
    assert taken.event["data"]["message"]["content"] == "Hello"
    assert taken.event["data"]["conversation_id"] == str(conversation.pk)
    delivery = EventDelivery.objects.get()
    assert (delivery.attempts, delivery.http_status, delivery.code, delivery.endpoint) == (1, 200, "", endpoint)
    endpoint.refresh_from_db()
    assert endpoint.succeeded_at is not None


@pytest.mark.django_db(transaction=True)
def test_an_endpoint_gets_the_kinds_that_it_wants_of_its_own_client(
    shop: Client, neighbour: Client, receiver: Make
) -> None:
    opened, _ = receiver(shop, kinds=["conversation.opened"])
    every, _ = receiver(shop)
    private, _ = receiver(shop, private=True)
    theirs, _ = receiver(neighbour)
    secret = factories.ConversationFactory(client=shop, channel="web", thread="t-1")
    say([*conversations_of(shop, 1), secret], 1)
    with sending():
        eventually(lambda: len(private.taken) == 2, "both events come")
        eventually(lambda: every.taken, "one event comes")
    assert [each.event["data"]["channel"] for each in every.taken] == ["sms"]
    assert (opened.taken, theirs.taken) == ([], [])


@pytest.mark.django_db(transaction=True)
def test_two_thousand_events_survive_a_receiver_that_does_everything_wrong(shop: Client, receiver: Make) -> None:
    def behave(number: int, _event: dict[str, Any]) -> int:
        if number % 97 == 0:
            time.sleep(1.3)  # longer than Convo waits
        if number % 41 == 0:
            time.sleep(0.3)
        return {0: 500, 1: 302, 2: 429}.get(number % 23, 200)

    fake, _ = receiver(shop, behave)
    conversations = conversations_of(shop, 50)
    with sending():
        say(conversations, 20)
        eventually(lambda: len(fake.taken) > 200, "some have come")
    say(conversations, 20)  # the sender was stopped: another goes on
    with sending():
        waits = EventDelivery.objects.exclude(status="delivered")
        number_all()
        eventually(lambda: not waits.exists(), "all have come", 240)
    assert fake.unsigned == 0
    assert texts_by_conversation(fake) == {str(each.pk): [str(n) for n in range(1, 41)] for each in conversations}


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_hangs_makes_no_other_tenant_wait(shop: Client, neighbour: Client, receiver: Make) -> None:
    def hang(_number: int, _event: dict[str, Any]) -> int:
        time.sleep(2)
        return 200

    receiver(shop, hang)
    receiver(shop, hang, "/other")
    fake, _ = receiver(neighbour)
    say(conversations_of(shop, 60), 2)
    theirs = conversations_of(neighbour, 5)
    with sending():
        eventually(
            lambda: EventDelivery.objects.filter(lease_until__isnull=False).count() >= 16, "the slow one is full"
        )
        took = []
        for number in range(1, 6):
            begun = time.monotonic()
            say(theirs, 1)
            eventually(lambda number=number: len(fake.taken) == 5 * number, "theirs come")
            took.append(time.monotonic() - begun)
    assert statistics.median(took) < 1.0, "no later than a second, whatever the machine does in between"


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_is_down_gets_everything_when_it_is_back(shop: Client, receiver: Make) -> None:
    up = False
    fake, endpoint = receiver(shop, lambda _number, _event: 200 if up else 503)
    conversations = conversations_of(shop, 10)
    say(conversations, 3)
    with sending():
        eventually(lambda: EventEndpoint.objects.get().failures >= deliveries.FAILING_AFTER, "it is known to fail")
        seen = fake._number
        time.sleep(0.5)
        assert fake._number - seen <= 4, "one at a time, and not at once"
        endpoint.refresh_from_db()
        assert endpoint.failing_since is not None
        assert endpoint.last_code == "http_503"
        up = True
        eventually(lambda: len(fake.taken) == 30, "everything comes")
    assert texts_by_conversation(fake) == {str(each.pk): ["1", "2", "3"] for each in conversations}
    endpoint.refresh_from_db()
    assert (endpoint.failures, endpoint.failing_since, endpoint.paused_at) == (0, None, None)


@pytest.mark.django_db(transaction=True)
def test_one_that_is_gone_is_paused_until_staff_resume_it(shop: Client, receiver: Make) -> None:
    is_gone = True
    fake, endpoint = receiver(shop, lambda _number, _event: 410 if is_gone else 200)
    conversations = conversations_of(shop, 3)
    say(conversations, 2)
    with sending():
        eventually(lambda: EventEndpoint.objects.get().paused_at, "it is paused")
        time.sleep(0.3)
        seen = fake._number
        time.sleep(0.4)
        assert fake._number == seen
        endpoint.refresh_from_db()
        assert endpoint.pause_reason == "gone"
        is_gone = False
        assert endpoints.resume(endpoint.pk) == 6
        eventually(lambda: len(fake.taken) == 6, "what waited comes")


# --- without a network ------------------------------------------------------------------------------------------------
@pytest.fixture
def claimed(shop: Client) -> tuple[EventEndpoint, list[Conversation]]:
    """An endpoint, and two conversations of which something was said."""
    endpoint, _ = endpoints.create_endpoint(shop, "https://example.com/events")
    conversations = conversations_of(shop, 2)
    say(conversations, 2)
    number_all()
    return endpoint, conversations


@pytest.mark.django_db
def test_the_first_of_each_conversation_is_claimed_and_the_next_waits(claimed: Any) -> None:
    now = timezone.now()
    first = deliveries.claim(now, {}, 10)
    assert [json.loads(each.body)["data"]["message"]["content"] for each in first] == ["1", "1"]
    assert deliveries.claim(now, {}, 10) == [], "another process finds nothing"
    deliveries.record([deliveries.Outcome(first[0].delivery_id, first[0].endpoint_id, 200, "")], now)
    [second] = deliveries.claim(now, {}, 10)
    assert json.loads(second.body)["data"]["message"]["content"] == "2"
    later = now + deliveries.LEASE + timedelta(seconds=1)
    assert len(deliveries.claim(later, {}, 10)) == 2, "what a dead process held is posted again"


@pytest.mark.django_db
def test_an_event_is_given_up_after_three_days_and_can_be_replayed(claimed: Any) -> None:
    now = timezone.now()
    [first, _] = deliveries.claim(now, {}, 10)
    failed = deliveries.Outcome(first.delivery_id, first.endpoint_id, 500, "http_500")
    deliveries.record([failed], now + timedelta(days=2, hours=23))
    assert EventDelivery.objects.get(pk=first.delivery_id).status == "pending"
    deliveries.record([failed], now + timedelta(days=3, minutes=1))
    delivery = EventDelivery.objects.get(pk=first.delivery_id)
    assert (delivery.status, delivery.code, delivery.http_status) == ("failed", "http_500", 500)
    assert endpoints.replay(delivery)
    assert not endpoints.replay(delivery), "it waits already"
    EventEndpoint.objects.update(next_try_at=None, paused_at=None)
    again = deliveries.claim(timezone.now(), {}, 10)
    assert first.event_id in [each.event_id for each in again], "with the same id"


@pytest.mark.django_db
def test_an_endpoint_that_fails_for_three_days_is_paused(claimed: Any) -> None:
    endpoint, _ = claimed
    now = timezone.now()
    [first, _] = deliveries.claim(now, {}, 10)
    failed = deliveries.Outcome(first.delivery_id, first.endpoint_id, None, "connect")
    deliveries.record([failed], now)
    deliveries.record([failed], now + timedelta(days=3))
    endpoint.refresh_from_db()
    assert (endpoint.pause_reason, endpoint.last_code) == ("failing", "connect")
    assert deliveries.claim(now + timedelta(days=4), {}, 10) == []


@pytest.mark.django_db
def test_a_new_secret_signs_beside_the_one_before_for_a_day(claimed: Any) -> None:
    endpoint, _ = claimed
    before, now = endpoint.secrets["current"], timezone.now()
    new = endpoints.rotate_secret(endpoint.pk, now)
    endpoint.refresh_from_db()
    assert new != before
    assert new not in str(EventEndpoint.objects.extra(select={"raw": "secrets"}).values("raw"))
    assert endpoints.signing_secrets(endpoint, now + timedelta(hours=23)) == [new, before]
    assert endpoints.signing_secrets(endpoint, now + timedelta(hours=25)) == [new]


@pytest.mark.django_db
def test_an_erasure_takes_the_person_s_events_and_tells_whom_to_forget(claimed: Any) -> None:
    _, [conversation, other] = claimed
    erasure.begin(conversation.contact_id, actor=SYSTEM, now=timezone.now())
    number_all()
    posts = [json.loads(each.body) for each in deliveries.claim(timezone.now(), {}, 10)]
    assert {each["type"]: each["data"].get("conversation_id") for each in posts} == {
        "message.in": str(other.pk),
        "contact.erased": None,
    }
    [erased] = [each for each in posts if each["type"] == "contact.erased"]
    assert erased["data"] == {"contact_id": str(conversation.contact_id)}
    assert not EventDelivery.objects.filter(conversation_id=conversation.pk).exists()


@pytest.mark.django_db
def test_a_private_address_is_not_reached(shop: Client, settings: Any) -> None:
    settings.EVENT_PRIVATE_NETWORKS = []
    endpoint, secret = endpoints.create_endpoint(shop, "http://127.0.0.1:9/events")
    post = deliveries.Post(1, shop.pk, endpoint.pk, endpoint.url, (secret,), "evt_1", b"{}")
    outcome = sender.event_loop.run(sender.send(post), 10)
    assert outcome.code == "private_address"


@pytest.mark.django_db
def test_the_command_makes_an_endpoint_and_prints_its_secret(shop: Client) -> None:
    out = StringIO()
    arguments = ["--client", "shop", "--url", "https://example.com/in", "--events", "message.in, message.out"]
    call_command("create_event_endpoint", *arguments, stdout=out)
    made = json.loads(out.getvalue())
    assert made["secret"].startswith("whsec_")
    assert made["events"] == ["message.in", "message.out"]
    endpoint = EventEndpoint.objects.get(pk=made["id"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT secrets FROM event_endpoints")
        assert made["secret"] not in cursor.fetchall()[0][0]
    assert endpoints.signing_secrets(endpoint, timezone.now()) == [made["secret"]]
    for url, events in (("https://example.com/in", ""), ("ftp://example.com", ""), ("https://u:p@example.com", "")):
        with pytest.raises(CommandError):
            call_command("create_event_endpoint", "--client", "shop", "--url", url, "--events", events)
    with pytest.raises(CommandError, match=r"events: Use message\.in"):
        call_command("create_event_endpoint", "--client", "shop", "--url", "https://x.example", "--events", "any")
