"""The first page: right figures of one's own clients, each a link to what it counts, from a few looks into indexes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import ChannelAccount, Chunk, Client, Conversation, Message, Turn
from conversations.services.jobs import metrics
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.staff import signed_in, staff, superuser

pytestmark = pytest.mark.django_db


def busy(door: Door) -> None:
    """A day at the client's: two people answered, one waiting for a person, something failed."""
    for name in ("ann", "bob"):
        door.says("Hello", user_id=name)
    reply_to_all()
    send_all()
    door.says("Hello?", user_id="cid", channel="whatsapp", phone="+51999999999")
    past = timezone.now() - timedelta(minutes=5)
    mine = Conversation.objects.filter(client=door.shop)
    mine.filter(channel="whatsapp").update(needs_staff_since=past, reply_due_at=past)
    sent = Message.objects.filter(conversation__in=mine)
    failed, unclear = sent.order_by("created_at")[:2]
    Message.objects.filter(pk=failed.pk).update(status="failed", failed_at=past)
    Message.objects.filter(pk=unclear.pk).update(status="unknown")
    turn = Turn.objects.filter(conversation__in=mine).first()
    assert turn
    Turn.objects.filter(pk=turn.pk).update(status="failed", ended_at=past)
    account = ChannelAccount.objects.filter(client=door.shop).first()
    assert account
    ChannelAccount.objects.filter(pk=account.pk).update(health="broken")


def numbers(page: Any) -> dict[str, str]:
    groups = ("waiting", "failures", "times", "open")
    return {number.name: number.value for group in groups for number in page.context[group]}


def test_it_counts_what_is_the_users_clients(door, neighbour, neighbours_key):
    busy(Door(neighbour, neighbours_key))
    busy(door)
    index = reverse("admin:index")
    mine = numbers(signed_in(staff("ann", shop=Role.VIEWER)).get(index))
    assert mine == {
        "For a person": "1",
        "Due replies": "1",
        "Unsent messages": "0",
        **dict.fromkeys(("Summaries", "To be remembered", "To be archived", "Events to process"), "0"),
        "Messages": "1",
        "Replies": "1",
        "Unclear": "1",
        "Tool calls": "0",
        "Accounts": "1",
        "Not reached": "0",
        "Open": "3",
        "Active": "3",
        "Stale": "0",
        "Guests": "2",
        "Half within": mine["Half within"],
        "95 of 100 within": mine["95 of 100 within"],
    }
    assert mine["Half within"].endswith(" s")
    both = numbers(signed_in(staff("bob", shop=Role.VIEWER, neighbour=Role.AGENT)).get(index))
    all_ = numbers(signed_in(superuser()).get(index))
    assert both["Open"] == all_["Open"] == "6"
    nobody = signed_in(staff("stranger")).get(index)
    assert "no role in any client" in nobody.content.decode()


def test_every_number_leads_to_the_list_of_what_it_counts(door, neighbour, neighbours_key):
    busy(Door(neighbour, neighbours_key))
    busy(door)
    http = signed_in(staff("ann", shop=Role.VIEWER))
    page = http.get(reverse("admin:index"))
    counted = [number for group in ("waiting", "failures", "open") for number in page.context[group]]
    bars = [bar for row in page.context["channels"] + page.context["hours"] for bar in row["bars"]]
    seen = 0
    for number in counted + bars:
        listed = http.get(number.link)
        assert listed.status_code == 200, number
        assert listed.context["cl"].queryset.count() == int(number.value), number
        assert number.link.replace("&", "&amp;") in page.content.decode()
        seen += int(number.value)
    assert seen
    assert page.context["said"] == 3
    assert page.context["answered"] == 2


def test_hours_and_reply_times_are_those_of_the_last_day(shop):
    now = timezone.now().replace(minute=30)
    session = factories.ConversationFactory(client=shop)

    def say(position: int, role: str, ago: timedelta, **more: Any) -> None:
        chunk = Chunk.objects.create(conversation=session, position=position, role=role, content="x", **more)
        Chunk.objects.filter(pk=chunk.pk).update(created_at=now - ago)

    say(1, "user", timedelta(days=2))
    say(2, "ai", timedelta(days=2) - timedelta(seconds=500))
    say(3, "voice", timedelta(hours=2))
    say(4, "ai", timedelta(hours=2) - timedelta(seconds=4))
    say(5, "ai", timedelta(hours=1))  # a second word is no reply
    say(6, "user", timedelta(minutes=10))
    say(7, "ai", timedelta(minutes=9), author=superuser())  # a person's reply is not the assistant's
    day = metrics.last_day([shop.pk], now)
    assert len(day.hours) == 24
    assert [(hour.messages, hour.replies) for hour in day.hours[-3:]] == [(1, 1), (0, 1), (1, 1)]
    assert sum(hour.messages for hour in day.hours) == 2
    assert day.median_seconds == day.slow_seconds == 4.0
    assert metrics.last_day([], now).median_seconds is None


def test_an_empty_house_has_a_first_page(shop):
    page = signed_in(superuser()).get(reverse("admin:index"))
    assert "No conversation is open." in page.content.decode()
    assert set(numbers(page).values()) == {"0", "—"}


def test_its_files_are_our_own_and_need_no_other_server(shop):
    http = signed_in(superuser())
    page = http.get(reverse("admin:index")).content.decode()
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert "/static/conversations/admin.css" in files
    for file in files:
        assert http.get(file).status_code == 200, file


def test_the_looks_are_as_many_however_much_there_is(door, neighbour, neighbours_key):
    http = signed_in(staff("ann", shop=Role.MANAGER))
    http.get(reverse("admin:index"))
    looks = []
    for _ in range(2):
        with CaptureQueriesContext(
            connection,
        ) as seen:
            http.get(reverse("admin:index"))
        looks.append(len(seen))
        busy(door)
    assert looks[0] == looks[1] == 20, (
        seen.captured_queries
    )  # session, user, roles, ten figures, what is missing, models, quotas


USED = {
    "open_sessions": {"open_conversations_of_client", "one_open_conversation", "conversations_by_status"},
    "last_day": {"said_of_late"},
    "waiting_for_staff": {"needs_staff"},
    "unclear_messages": {"messages_unsettled"},
    "failed_messages": {"messages_failed"},
    "failed_replies": {"turns_failed"},
}


def many_ended_sessions(client: Client) -> None:
    """5,000 of them, known to the planner; two are open."""
    contact = factories.ConversationFactory(client=client).contact
    factories.ConversationFactory(client=client)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO conversations (client_id, contact_id, channel, status, ended_at, ended_by)"
            " SELECT %s, %s, 'sms', 'closed', now(), 'user' FROM generate_series(1, 5000)",
            [client.pk, contact.pk],
        )
        cursor.execute("ANALYZE conversations")


def many_sent_messages(client: Client) -> None:
    """1,000 of them, known to the planner."""
    session = Conversation.objects.filter(client=client, status="active").first()
    chunk = Chunk.objects.create(conversation=session, position=1, role="ai", content="Hello")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO conversation_messages"
            " (client_id, id, conversation_id, chunk_id, part, parts, to_address, to_kind, text, status)"
            " SELECT %s, gen_random_uuid(), %s, %s, part, 1000, 'x', 'user', 'Hello', 'sent'"
            " FROM generate_series(1, 1000) AS part",
            [client.pk, session.pk, chunk.pk],
        )
        cursor.execute("ANALYZE conversation_messages")


@pytest.mark.parametrize("scoped", [True, False])
@pytest.mark.parametrize("name", USED)
def test_each_look_uses_the_index_made_for_it(shop: Client, monkeypatch, name, scoped):
    """With sequential scans made dear: small tables PostgreSQL would rather read as a whole."""
    many_ended_sessions(shop)
    many_sent_messages(shop)
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def note(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        asked.append((statement, values))
        return [(0, None, None)] if "GROUP BY" not in statement else []

    monkeypatch.setattr(metrics, "rows", note)
    arguments = [[shop.pk] if scoped else None]
    if name not in {"open_sessions", "waiting_for_staff", "unclear_messages"}:
        arguments.append(timezone.now())
    getattr(metrics, name)(*arguments)
    monkeypatch.undo()
    statement, values = asked[0]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = "\n".join(line for (line,) in metrics.rows(f"EXPLAIN {statement}", *values))
    assert [index for index in USED[name] if index in plan], plan
