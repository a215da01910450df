"""The feed of events: in order, without gaps, of one client alone, and whatever transactions overlap."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.http import streams
from conversations.models import Chunk, Client, Conversation, Event, EventNote, EventNumbering, EventPosition
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.events import deliveries, feed
from conversations.services.events.numbering import number_all, number_events
from conversations.services.tenants import api_keys
from conversations.services.transitions import closing, steps, takeover
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.races.threads import not_committed, together
from tests.routes import WebServer, assert_failure


def read(door: Door, after: int = 0, **more: Any) -> list[dict[str, Any]]:
    """The events after the position, page by page."""
    query = "".join(f"&{name}={value}" for name, value in more.items())
    found: list[dict[str, Any]] = []
    while True:
        page = door.get(f"/events?after={after}{query}")
        found += page["items"]
        after = page["position"]
        if page["next"] is None:
            return found
        assert page["next"] == str(after)


# --- what it holds ----------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_conversation_is_told_in_order(door: Door) -> None:
    door.get("/events")
    said = door.says("Where is my parcel?", message_id="m1")
    reply_to_all()
    send_all()
    pk = said["conversation_id"]
    step = steps.add_step(pk, "Ask the number", SYSTEM)
    steps.update_step(step.pk, "complete", SYSTEM)
    takeover.take_over(pk, name="Maria", actor=SYSTEM, now=timezone.now())
    takeover.hand_back(pk, actor=SYSTEM, now=timezone.now())
    closing.close(pk, ended_by="user", actor=SYSTEM, now=timezone.now(), reason="goodbye")
    events = read(door)
    assert [each["position"] for each in events] == list(range(1, len(events) + 1))
    kinds = [each["type"] for each in events]
    assert kinds[:2] == ["conversation.opened", "message.in"]
    assert {each["data"]["conversation_id"] for each in events} == {pk}
    wanted = ["message.out", "step.updated", "conversation.taken_over", "conversation.handed_back"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in wanted] == wanted
    assert kinds.index("conversation.ended") > kinds.index("conversation.handed_back")
    asked = next(each for each in events if each["type"] == "message.in")
    assert asked["data"]["message"]["content"] == "Where is my parcel?"
    assert asked["data"]["user_id"] == "ann"
    sent = next(each for each in events if each["type"] == "delivery.updated")
    assert sent["data"]["delivery"]["status"] in ("sent", "delivered")
    answered = next(each for each in events if each["type"] == "message.out")
    assert sent["data"]["delivery"]["chunk_id"] == answered["data"]["message"]["id"]


@pytest.mark.django_db
def test_pages_follow_each_other_and_types_narrow_them(door: Door) -> None:
    for number in range(7):
        door.says(f"Hello {number}")
    everything = read(door)
    assert len(everything) == 8
    assert read(door, limit=3) == everything
    assert read(door, after=5) == everything[5:]
    assert [each["type"] for each in read(door, types="message.in")] == ["message.in"] * 7
    assert read(door, types="message.in", limit=2) == everything[1:]
    assert read(door, after=99) == []


@pytest.mark.django_db
def test_a_client_reads_its_own_events_alone(door: Door, neighbour: Client, neighbours_key: str) -> None:
    door.says("Hello")
    theirs = WebServer(neighbours_key).call("GET", "/events").json["data"]
    assert theirs == {"items": [], "next": None, "position": 0}
    WebServer(neighbours_key).call(
        "POST", "/webhooks/sms/inbound", {"client_id": str(neighbour.pk), "user_id": "eve", "message": "Hi"}
    )
    events = WebServer(neighbours_key).call("GET", "/events").json["data"]["items"]
    assert [each["position"] for each in events] == [1, 2], "each client's positions are its own"
    assert {each["client_id"] for each in events} == {str(neighbour.pk)}
    assert {each["client_id"] for each in read(door)} == {str(door.shop.pk)}


@pytest.mark.django_db
def test_private_conversations_need_their_scope(door: Door, shop: Client) -> None:
    private = factories.ConversationFactory(client=shop, channel="web", thread="t-1")
    Chunk.objects.create(conversation=private, position=1, role="user", content="Between us")
    door.says("Hello")
    assert str(private.pk) not in str(read(door))
    door.key = api_keys.create_api_key(shop, scopes=["conversations:read", "private:read"])[1]
    assert "Between us" in str(read(door))


@pytest.mark.django_db
def test_what_was_deleted_is_told_without_words(door: Door) -> None:
    pk = door.says("My secret")["conversation_id"]
    assert "My secret" in str(read(door))
    Conversation.objects.get(pk=pk).delete()
    events = read(door)
    assert "My secret" not in str(events)
    assert [each["data"]["deleted"] for each in events] == [True, True]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "after=9999999999999999999", "limit=0", "limit=501", "types=x"]
)
def test_nonsense_is_refused(server: WebServer, query: str) -> None:
    assert_failure(server.call("GET", f"/events?{query}"), 400)


@pytest.mark.django_db
def test_old_events_go_and_positions_go_on(door: Door) -> None:
    door.says("Hello")
    assert len(read(door)) == 2
    later = timezone.now() + timezone.timedelta(days=31)
    assert deliveries.delete_old(later, 30) == 2
    door.says("Again")
    assert [each["position"] for each in read(door)] == [3]


# --- overlapping transactions -----------------------------------------------------------------------------------------
@pytest.fixture
def two(transactional_db: Any) -> tuple[Conversation, Conversation]:
    """Two conversations of one client."""
    first = factories.ConversationFactory()
    return first, factories.ConversationFactory(client=first.client)


def say(conversation: Conversation, text: str) -> None:
    with transaction.atomic():
        locked = Conversation.objects.select_for_update(no_key=True).get(pk=conversation.pk)
        locked.last_position += 1
        locked.save(update_fields=["last_position"])
        Chunk.objects.create(conversation=locked, position=locked.last_position, role="user", content=text)


def told(client: Client, after: int = 0) -> list[tuple[int, str]]:
    page = feed.page(client.pk, after, 500, private=True)
    return [(each["position"], each["data"]["message"]["content"]) for each in page.items if "message" in each["data"]]


def test_what_commits_late_is_told_late_and_not_skipped(two: tuple[Conversation, Conversation]) -> None:
    first, second = two
    with not_committed(lambda: say(first, "slow")):
        say(second, "quick")
        seen = told(first.client)
        assert [text for _, text in seen] == ["quick"]
        for _ in range(3):
            assert number_events() == 0, "the gap stays open while its transaction runs"
    after = seen[-1][0]
    assert [text for _, text in told(first.client, after)] == ["slow"]


def test_what_is_under_way_with_the_last_id_of_all_is_told_when_it_commits(
    two: tuple[Conversation, Conversation],
) -> None:
    first, second = two
    say(second, "quick")
    after = told(first.client)[-1][0]
    with not_committed(lambda: say(first, "last")):
        for _ in range(3):
            assert number_events() == 0
    assert [text for _, text in told(first.client, after)] == ["last"]


def test_a_gap_that_nobody_fills_is_closed(two: tuple[Conversation, Conversation]) -> None:
    first, second = two

    def give_up() -> None:
        with transaction.atomic():
            say(first, "taken back")
            transaction.set_rollback(True)

    say(second, "one")
    give_up()
    say(second, "two")
    assert [text for _, text in told(first.client)] == ["one", "two"]
    number_all()
    number_events()
    state = EventNumbering.objects.get(source="chunk")
    last = Chunk.objects.latest("pk").pk
    assert (state.numbered, state.doubt_upto) == (f"{{[0,{last + 1})}}", None)


def test_a_pass_takes_one_statement_where_nothing_was_written(two: tuple[Conversation, Conversation]) -> None:
    say(two[0], "the newest chunk")
    record(two[0], "needs_staff", SYSTEM)
    EventNote.objects.create(client=two[0].client, kind="contact.changed", data={})
    for _ in range(3):  # number what is new, see the gaps that other tests left, and close them
        number_events()
    seen_upto = told(two[0].client)[-1][0]
    with CaptureQueriesContext(connection) as seen:
        assert number_events() == 0
    assert len(seen) == 1
    say(two[0], "something")
    with CaptureQueriesContext(connection) as seen:
        assert number_events() == 1
    assert len(seen) <= 8, "the look, the lock in a transaction, the states, the events, and a state that is kept"
    assert [text for _, text in told(two[0].client, seen_upto)] == ["something"]


def write(conversation: Conversation) -> None:
    """Write 25 chunks, each with a line of the ledger; some transactions last, and some ids are never used."""
    for number in range(25):
        with transaction.atomic(), connection.cursor() as cursor:
            say(conversation, f"{conversation.pk} {number}")
            record(conversation, "needs_staff", SYSTEM)
            if random.random() < 0.5:
                cursor.execute("SELECT pg_sleep(%s)", [random.uniform(0, 0.02)])
            if random.random() < 0.2:
                cursor.execute("SELECT nextval('conversation_chunks_id_seq')")


def follow(client: Client, over: threading.Event) -> list[str]:
    """Read pages until the writers are done, and return the texts."""
    position, texts, has_more = 0, [], True
    while has_more or not over.is_set():
        was_over = over.is_set()
        page = feed.page(client.pk, position, 7, private=True)
        positions = [each["position"] for each in page.items]
        assert positions == sorted(positions)
        assert not positions or positions[0] > position
        texts += [each["data"]["message"]["content"] for each in page.items if "message" in each["data"]]
        position, has_more = page.position, page.has_more or not was_over
    return texts


def test_no_reader_skips_an_event_however_transactions_overlap(two: tuple[Conversation, Conversation]) -> None:
    client = two[0].client
    conversations = [*two, *(factories.ConversationFactory(client=client) for _ in range(6))]
    over = threading.Event()
    read_by: list[list[str]] = []
    readers = [
        threading.Thread(target=_closing(lambda: read_by.append(follow(client, over))), daemon=True) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    together(*(partial(write, each) for each in conversations))
    over.set()
    for reader in readers:
        reader.join(60)
    each_in_order = {str(each.pk): [f"{each.pk} {number}" for number in range(25)] for each in conversations}
    assert len(read_by) == 3
    for texts in read_by:
        assert len(texts) == 200
        assert {pk: [text for text in texts if text.startswith(pk)] for pk in each_in_order} == each_in_order
    assert Event.objects.filter(kind="conversation.needs_staff").count() == 200
    assert EventPosition.objects.get().last == 400


def _closing(work: Any) -> Any:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    return run


# --- the stream -------------------------------------------------------------------------------------------------------
@pytest.fixture
def url(live_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running server, whose feed's thread ends with the test."""
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(feed, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)  # so that a stream notices that its reader is gone
    yield live_server.url
    thread = feed.feed._thread
    if thread:
        thread.join(10)
    assert feed.feed._thread is None


def stream(url: str, key: str, **headers: str) -> tuple[requests.Response, Iterator[tuple[str, str]]]:
    """The answer, and the id and type of each event as they come."""
    given = {"X-Service-API-Key": key, "Accept": "text/event-stream", **headers}
    answer = requests.get(f"{url}/events", headers=given, stream=True, timeout=20)

    def events() -> Iterator[tuple[str, str]]:
        fields: dict[str, str] = {}
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield fields["id"], fields["event"]
                fields = {}

    return answer, events()


def test_the_stream_brings_events_as_they_come_and_goes_on_after_the_last(url: str, door: Door) -> None:
    door.says("One")
    answer, events = stream(url, door.key)
    with answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert [next(events), next(events)] == [("1", "conversation.opened"), ("2", "message.in")]
        door.says("Two")
        assert next(events) == ("3", "message.in")
    door.says("Three")
    again, events = stream(url, door.key, **{"Last-Event-ID": "3"})
    with again:
        assert next(events) == ("4", "message.in")
    refused, _ = stream(url, door.key, **{"Last-Event-ID": "nonsense"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    refused, _ = stream(url, api_keys.create_api_key(door.shop, scopes=["memory:read"])[1])
    assert refused.status_code == 403
