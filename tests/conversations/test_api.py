"""The API's sessions: lists, one of them, its transcript, what is sent, its steps, its end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.adapters.sandbox import SandboxAdapter
from conversations.models import (
    ChannelAccount,
    Chunk,
    Client,
    Conversation,
    ConversationEvent,
    Message,
    Step,
)
from conversations.services.staff_actions import seed_helpers
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.conftest import close

pytestmark = pytest.mark.django_db

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def many(shop: Client, number: int, **fields: Any) -> list[Conversation]:
    account = ChannelAccount.objects.get(client=shop, channel="sms")
    return [factories.ConversationFactory(client=shop, channel_account=account, **fields) for _ in range(number)]


def listed(door: Door, query: str = "") -> list[str]:
    return [each["id"] for each in door.get(f"/conversations?{query}")["items"]]


def pages(door: Door, path: str, query: str, name: str = "id") -> list[list[Any]]:
    """Every page of a list, to its end."""
    found, following = [], ""
    while True:
        data = door.get(f"{path}?{query}{following}")
        found.append([each[name] for each in data["items"]])
        if data["next"] is None:
            return found
        following = f"&cursor={data['next']}"
        assert len(found) < 100, "it does not end"


def statements(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        call()
    return len(captured)


# --- the list ---------------------------------------------------------------------------------------------------------
def test_an_empty_list_is_a_list(door: Door) -> None:
    assert door.get("/conversations") == {"items": [], "next": None}


def test_the_list_shows_the_newest_first(door: Door, shop: Client) -> None:
    old, new = (many(shop, 1, last_message_at=BEGINNING + timedelta(days=day))[0] for day in (0, 1))
    assert listed(door) == [str(new.pk), str(old.pk)]


def test_a_session_in_the_list_is_as_it_is_alone(door: Door, ids: dict[str, Any]) -> None:
    [shown] = door.get("/conversations")["items"]
    alone = door.get(f"/conversations/{ids['pk']}?chunks=0")
    for name in ("device", "assistant", "assigned_to", "team", "steps", "rating", "chunks"):
        alone.pop(name)
    times = {name for name in shown if name.endswith("_at") and shown[name]}
    assert {name: datetime.fromisoformat(alone.pop(name)) for name in times} == {
        name: datetime.fromisoformat(shown.pop(name)) for name in times
    }
    assert shown == alone
    assert shown["user_id"] == "ann"


def test_the_list_can_be_narrowed(door: Door, shop: Client) -> None:
    ann = factories.ContactFactory(client=shop, user_id="ann")
    active = many(shop, 1, contact=ann, last_message_at=BEGINNING)[0]
    stale = many(shop, 1, status="stale", last_message_at=BEGINNING + timedelta(days=1))[0]
    closed = many(shop, 1, last_message_at=BEGINNING + timedelta(days=2))[0]
    close(closed.pk)
    orb = factories.ConversationFactory(
        client=shop,
        channel="orb",
        contact=ann,
        channel_account=ChannelAccount.objects.get(client=shop, channel="orb"),
        last_message_at=BEGINNING + timedelta(days=3),
    )
    a, s, c, o = (str(each.pk) for each in (active, stale, closed, orb))
    for query, expected in {
        "status=open": [o, s, a],
        "status=active": [o, a],
        "status=closed": [c],
        "status=archived": [],
        "channel=orb": [o],
        "channel=web": [],
        "user_id=ann": [o, a],
        "user_id=nobody": [],
        "user_id=ann&channel=sms&status=open": [a],
        "started_after=2026-01-03T00:00:00Z": [o, c],
        "started_before=2026-01-03T00:00:00Z": [s, a],
        "started_after=2026-01-02T00:00:00Z&started_before=2026-01-03T00:00:00Z": [s],
        "started_after=2026-01-02T02:00:00%2B02:00": [o, c, s],
    }.items():
        assert listed(door, query) == expected, query


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("moments", [1, 3, 25])
def test_pages_have_no_gaps_and_no_doubles(limit: int, moments: int, door: Door, shop: Client) -> None:
    """Also where sessions began at the same instant."""
    for number in range(25):
        many(shop, 1, last_message_at=BEGINNING + timedelta(microseconds=number % moments))
    found = pages(door, "/conversations", f"limit={limit}")
    expected = Conversation.objects.order_by("-started_at", "-id").values_list("id", flat=True)
    assert [each for page in found for each in page] == [str(pk) for pk in expected]
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert found[-1], "a full last page says that it is the last"


def test_what_begins_meanwhile_moves_no_page(door: Door, shop: Client) -> None:
    before = [str(each.pk) for each in many(shop, 4, last_message_at=BEGINNING)]
    first = door.get("/conversations?limit=2")
    many(shop, 3)
    second = door.get(f"/conversations?limit=2&cursor={first['next']}")
    assert {each["id"] for each in first["items"] + second["items"]} == set(before)
    assert second["next"] is None


def test_a_page_s_size_has_bounds(door: Door, shop: Client) -> None:
    many(shop, 21)
    assert len(listed(door)) == 20
    assert len(listed(door, "limit=1")) == 1
    assert len(listed(door, "limit=100")) == 21
    for limit in ("0", "101", "-1", "many"):
        status, envelope = door.call("GET", f"/conversations?limit={limit}")
        assert (status, envelope["code"], list(envelope["details"])) == (400, "invalid", ["limit"])


# --- one session ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("query", "shown"), [("", 10), ("?chunks=0", 0), ("?chunks=3", 3), ("?chunks=100", 100)])
def test_a_session_shows_as_many_of_its_newest_chunks_as_asked(
    query: str, shown: int, door: Door, ids: dict[str, Any]
) -> None:
    for number in range(102):
        seed_helpers.append_chunk(ids["pk"], "user", f"Number {number}")
    chunks = door.get(f"/conversations/{ids['pk']}{query}")["chunks"]
    assert [each["position"] for each in chunks] == list(range(105 - shown + 1, 106))


def test_more_than_a_hundred_chunks_are_in_the_transcript(door: Door, ids: dict[str, Any]) -> None:
    status, envelope = door.call("GET", f"/conversations/{ids['pk']}?chunks=101")
    assert (status, envelope["code"], list(envelope["details"])) == (400, "invalid", ["chunks"])


def test_a_session_shows_what_there_is_to_know(door: Door) -> None:
    opened = door.says("Hello", channel="whatsapp", phone="+51999999999")["conversation_id"]
    seen = door.get(f"/conversations/{opened}")
    assert {name: seen[name] for name in ("id", "user_id", "channel", "thread", "status", "is_guest", "goal")} == {
        "id": opened,
        "user_id": "ann",
        "channel": "whatsapp",
        "thread": "",
        "status": "active",
        "is_guest": False,
        "goal": "Handle inbound enquiry",
    }
    assert (seen["device"], seen["assistant"], seen["reply_owed"], seen["steps"]) == ("51999999999", "ada", True, [])
    reply_to_all()
    seen = door.get(f"/conversations/{opened}")
    assert seen["reply_owed"] is False
    assert [(each["role"], each["by_staff"]) for each in seen["chunks"]][-1] == ("ai", False)


def test_an_archived_session_shows_its_summary_and_no_chunks(door: Door, ids: dict[str, Any]) -> None:
    close(ids["pk"], "Ann lost a parcel.")
    Chunk.objects.filter(conversation=ids["pk"]).delete()
    Conversation.objects.filter(pk=ids["pk"]).update(status="archived")
    seen = door.get(f"/conversations/{ids['pk']}")
    assert (seen["status"], seen["summary"], seen["chunks"]) == ("archived", "Ann lost a parcel.", [])
    assert door.get(f"/conversations/{ids['pk']}/chunks") == {"items": [], "next": None}


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_a_transcript_is_paged_by_position(limit: int, door: Door, ids: dict[str, Any]) -> None:
    for number in range(7):
        seed_helpers.append_chunk(ids["pk"], "user", f"Number {number}")
    found = pages(door, f"/conversations/{ids['pk']}/chunks", f"limit={limit}", "position")
    assert [each for page in found for each in page] == list(range(1, 11))
    assert door.get(f"/conversations/{ids['pk']}/chunks?cursor=9")["items"][0]["content"] == "Number 6"
    assert door.get(f"/conversations/{ids['pk']}/chunks?cursor=10") == {"items": [], "next": None}
    assert door.get(f"/conversations/{ids['pk']}/chunks?cursor=999999999") == {"items": [], "next": None}


@pytest.mark.parametrize(("path", "most"), [("/conversations", 2), ("/conversations/{pk}?chunks=100", 2)])
def test_reading_takes_as_many_statements_however_much_there_is(
    path: str, most: int, door: Door, shop: Client, ids: dict[str, Any]
) -> None:
    path = path.format(**ids)
    door.get(path)
    assert statements(lambda: door.get(path)) == most
    many(shop, 30)
    for number in range(30):
        seed_helpers.append_chunk(ids["pk"], "user", f"Number {number}")
        seed_helpers.add_step(ids["pk"], f"Step {number}")
    assert statements(lambda: door.get(path)) == most
    assert statements(lambda: door.get(f"/conversations/{ids['pk']}/chunks?limit=100")) == 5


# --- what is sent -----------------------------------------------------------------------------------------------------
def send(door: Door, pk: Any, content: str) -> tuple[int, Any]:
    return door.call("POST", f"/conversations/{pk}/send", {"role": "ai", "content": content})


def test_what_is_sent_is_shown_and_goes_out(door: Door) -> None:
    opened = door.says("Hello")["conversation_id"]
    status, envelope = send(door, opened, "  Hi Ann  ")
    assert status == 201
    [message] = envelope["data"]["messages"]
    chunk = envelope["data"]["chunk"]
    assert (chunk["role"], chunk["position"], chunk["content"], chunk["by_staff"]) == ("ai", 4, "  Hi Ann  ", False)
    assert (message["part"], message["parts"], message["status"], message["code"]) == (1, 1, "queued", "")
    shown = door.get(f"/conversations/{opened}")["chunks"][-1]
    assert datetime.fromisoformat(shown.pop("created_at")) == datetime.fromisoformat(chunk.pop("created_at"))
    assert shown == chunk
    send_all()
    assert Message.objects.get(pk=message["id"]).status == "delivered"
    assert reply_to_all() == 0
    event = ConversationEvent.objects.get(kind="sent")
    assert (event.actor, event.actor_name) == ("api", f"tests ({door.key[:12]})")


def test_a_role_need_not_be_said(door: Door, ids: dict[str, Any]) -> None:
    assert door.call("POST", f"/conversations/{ids['pk']}/send", {"content": "Hi"})[0] == 201


def test_a_long_text_is_sent_in_parts(door: Door) -> None:
    opened = door.says("Hello")["conversation_id"]
    text = "This is a sentence of some words. " * 400
    _, envelope = send(door, opened, text)
    messages = envelope["data"]["messages"]
    parts = len(messages)
    assert parts > 1
    assert [(each["part"], each["parts"]) for each in messages] == [(n, parts) for n in range(1, parts + 1)]
    assert envelope["data"]["chunk"]["content"] == text
    rows = Message.objects.order_by("part")
    assert "".join(each.text for each in rows).strip() == text.strip()
    assert max(len(each.text) for each in rows) <= SandboxAdapter.text_limit


def test_on_the_web_nothing_is_sent(door: Door, shop: Client) -> None:
    conversation = seed_helpers.create_conversation(shop.pk, "ann", "web", goal="")
    status, envelope = send(door, conversation.pk, "Hi Ann")
    assert (status, envelope["data"]["messages"], envelope["data"]["chunk"]["content"]) == (201, [], "Hi Ann")


def test_without_an_account_it_is_seen_to_fail(door: Door, shop: Client) -> None:
    ChannelAccount.objects.filter(client=shop).delete()
    opened = door.says("Hello")["conversation_id"]
    status, envelope = send(door, opened, "Hi Ann")
    [message] = envelope["data"]["messages"]
    assert (status, message["status"], message["code"]) == (201, "failed", "no_account")
    assert "create_channel_account" in message["reason"]


def test_into_an_ended_session_nothing_is_sent(door: Door, ids: dict[str, Any]) -> None:
    close(ids["pk"])
    for method, path, body in [
        ("POST", f"/conversations/{ids['pk']}/send", {"content": "Hi"}),
        ("POST", f"/conversations/{ids['pk']}/steps", {"description": "Ask"}),
        ("PATCH", f"/conversations/{ids['pk']}/steps/{ids['step_id']}", {"status": "complete"}),
    ]:
        status, envelope = door.call(method, path, body)
        assert (status, envelope["code"], envelope["details"]) == (409, "ended", {"status": "closed"})
    assert Chunk.objects.filter(conversation=ids["pk"]).count() == 3
    assert Step.objects.get().status == "pending"


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "\u2003"])
def test_nothing_blank_is_sent(blank: str, door: Door, ids: dict[str, Any]) -> None:
    status, envelope = send(door, ids["pk"], blank)
    assert (status, envelope["error"]) == (400, "content: This field may not be blank.")


def test_conversations_that_began_at_one_moment_are_on_one_page_each(door: Door, shop: Client) -> None:
    """A page may end between them: none comes twice, and none is left out."""
    moment = timezone.now() - timedelta(days=1)
    same = [factories.ConversationFactory(client=shop, last_message_at=moment).pk for _ in range(7)]
    older = factories.ConversationFactory(client=shop, last_message_at=moment - timedelta(microseconds=1)).pk
    newer = factories.ConversationFactory(client=shop, last_message_at=moment + timedelta(microseconds=1)).pk
    wanted = [str(pk) for pk in (newer, *sorted(same, reverse=True), older)]
    for limit in (1, 2, 3, 8, 9, 10):
        found = pages(door, "/conversations", f"limit={limit}")
        assert [pk for page in found for pk in page] == wanted
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert found[-1], "no page is empty"
