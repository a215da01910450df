"""Ageing: who becomes stale, who expires, who is deleted, and what the sweep looks at."""

from __future__ import annotations

import io
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from conversations.models import Chunk, Client, Contact, Conversation, Message, MessageTombstone
from conversations.services.core import deadlines, sql
from conversations.services.core.sql import column, rows
from conversations.services.jobs import sweep
from conversations.services.retention import retention
from conversations.services.staff_actions import seed_helpers
from tests import factories

pytestmark = pytest.mark.django_db

MINUTES, HOURS = timedelta(minutes=1), timedelta(hours=1)
TIMEOUTS = [(10 * MINUTES, 24 * HOURS), (1 * MINUTES, 30 * MINUTES), (2 * HOURS, 72 * HOURS)]


def statuses():
    return sorted(Conversation.objects.values_list("status", flat=True))


def test_the_clock_starts_at_the_last_message():
    for age in (9 * MINUTES, 11 * MINUTES, 23 * HOURS, 25 * HOURS):
        factories.ConversationFactory(aged=age)
    report = sweep.sweep(timezone.now())

    assert (report.stale, report.expired, report.purged) == (2, 1, 0)
    assert statuses() == ["active", "expired", "stale", "stale"]


def test_each_client_has_its_own_timeouts():
    patient = factories.ClientFactory(stale_after=2 * HOURS, expire_after=72 * HOURS)
    factories.ConversationFactory(client=patient, aged=25 * HOURS)
    factories.ConversationFactory(client=patient, aged=1 * HOURS)
    sweep.sweep(timezone.now())
    assert statuses() == ["active", "stale"]


def test_a_takeover_suspends_ageing_and_the_web_does_not_age():
    factories.ConversationFactory(aged=25 * HOURS, taken_over_at=timezone.now())
    factories.ConversationFactory(aged=25 * HOURS, channel="web", thread="t")
    report = sweep.sweep(timezone.now())
    assert (report.stale, report.expired) == (0, 0)


def test_an_expired_session_owes_and_sends_nothing(door):
    conversation_id = door.says("Hello", phone="+51999999999")["conversation_id"]
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "Hi"})
    door.says("Again")
    sweep.sweep(timezone.now() + 25 * HOURS)

    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.reply_owed) == ("expired", False)
    assert conversation.end_reason
    message = Message.objects.get()
    assert (message.status, message.code) == ("cancelled", "expired")


def test_a_second_sweep_does_nothing():
    factories.ConversationFactory(aged=25 * HOURS)
    now = timezone.now()
    sweep.sweep(now)
    again = sweep.sweep(now)
    assert (again.stale, again.expired, again.purged) == (0, 0, 0)
    assert Conversation.objects.get().events.count() == 1


def test_more_than_a_batch_is_swept(monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 3)
    client = factories.ClientFactory()
    factories.ConversationFactory.create_batch(8, client=client, channel_account=None, aged=25 * HOURS, is_guest=True)
    seen = []
    report = sweep.sweep(timezone.now(), lambda what, count: seen.append((what, count)))
    assert (report.expired, report.purged) == (8, 8)
    assert ("expired", 3) in seen
    assert ("purged", 8) in seen
    assert not Contact.objects.exists()


def test_a_guest_with_another_session_stays(door):
    door.says("Hello", channel="sms")
    long_ago = timezone.now() - 25 * HOURS
    Conversation.objects.update(started_at=long_ago, last_message_at=long_ago)
    door.says("Hello", channel="whatsapp")
    sweep.sweep(timezone.now())
    assert Conversation.objects.get().channel == "whatsapp"
    assert Contact.objects.count() == 1


def test_who_gave_a_phone_is_not_deleted(door):
    door.says("Hello")
    door.says("My number", phone="+51999999999")
    sweep.sweep(timezone.now() + 25 * HOURS)
    assert statuses() == ["expired"]
    assert Chunk.objects.exists()


def test_tombstones_last_eight_days(door):
    door.says("Hello", message_id="m1")
    now = timezone.now()
    sweep.sweep(now + 25 * HOURS)
    assert MessageTombstone.objects.count() == 1
    assert door.says("Hello", message_id="m1")["status"] == "deleted"
    sweep.sweep(now + timedelta(days=7))
    assert MessageTombstone.objects.count() == 1
    sweep.sweep(now + timedelta(days=9))
    assert not MessageTombstone.objects.exists()


def test_the_helper_of_the_seed_purges(door):
    door.says("Hello")
    Conversation.objects.update(status="expired", ended_at=timezone.now(), ended_by="timeout", reply_owed=False)
    assert seed_helpers.delete_guest_expired() == 1
    assert seed_helpers.delete_guest_expired() == 0


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_are_one():
    import threading

    entered, leave = threading.Event(), threading.Event()

    def hold():
        with sql.exclusively("convo.sweep") as alone:
            assert alone
            entered.set()
            leave.wait(10)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    assert sweep.sweep(timezone.now()).skipped
    leave.set()
    holder.join()
    assert not sweep.sweep(timezone.now()).skipped


def test_a_dry_run_counts_and_changes_nothing():
    factories.ConversationFactory(aged=25 * HOURS, is_guest=True)
    factories.ConversationFactory(aged=11 * MINUTES)
    out = io.StringIO()
    call_command("sweep", "--dry-run", stdout=out)

    assert "would be stale: 1" in out.getvalue()
    assert "would be expired: 1" in out.getvalue()
    assert "would be purged: 1" in out.getvalue()
    assert statuses() == ["active", "active"]


def test_the_command_sweeps_at_another_time():
    factories.ConversationFactory()
    out = io.StringIO()
    call_command("sweep", "--now", (timezone.now() + 25 * HOURS).isoformat(), stdout=out)
    assert "1 expired" in out.getvalue()
    assert statuses() == ["expired"]


def test_the_sweep_finds_what_each_rule_finds_and_nothing_else():
    """In all the ways in which a session can be silent, under timeouts as usual, shorter and longer."""
    now = timezone.now()
    clients = [factories.ClientFactory(stale_after=stale, expire_after=expire) for stale, expire in TIMEOUTS]
    people = {client: factories.ContactFactory(client=client) for client in clients}
    ways = product(
        *(clients, ["active", "stale"], ["voice", "web"]),  # which have threads: all are open at once
        *([0, 1, 26], [0, 0.5, 25], [None, -1, 1], [None, -2, -30], [None, -1, 1]),
    )
    Conversation.objects.bulk_create(
        Conversation(
            client=client,
            contact=people[client],
            status=status,
            channel=channel,
            thread=str(number),
            last_message_at=now - age * HOURS,
            started_at=now - (age + longer) * HOURS,
            **_at(now, taken_over_at=taken_over and -3, taken_over_until=taken_over),
            **_at(now, handed_back_at=handed_back, extended_until=extended),
        )
        for number, (client, status, channel, age, longer, taken_over, handed_back, extended) in enumerate(ways)
    )
    found: dict[str, set[Any]] = {}
    for what, _client_id, ids in rows(sweep.DUE_BY_KIND, now):
        found.setdefault(what, set()).update(ids)

    assert found == {what: set(column(f"SELECT s.id {deadlines.sweep_due(what)}", now)) for what in deadlines.SWEPT}
    assert {what: len(ids) for what, ids in found.items() if len(ids) <= 20} == {}

    in_a_cluster: dict[str, set[Any]] = {}
    for client in clients:
        for what, client_id, ids in rows(sweep.DUE_OF_CLIENT_BY_KIND, now, client.pk):
            assert client_id == client.pk
            in_a_cluster.setdefault(what, set()).update(ids)
    assert in_a_cluster == found


def _at(now, **hours):
    return {name: now + number * HOURS for name, number in hours.items() if number is not None}


def test_an_idle_sweep_does_not_read_ended_sessions():
    """The plans start from the index of the open ones, however many have ended."""
    client = factories.ClientFactory()
    contact = factories.ContactFactory(client=client)
    ended = {"client": client, "contact": contact, "status": "closed", "ended_by": "user", "ended_at": timezone.now()}
    Conversation.objects.create(channel="sms", **ended)
    columns = ", ".join(field.column for field in Conversation._meta.concrete_fields if not field.primary_key)
    factories.ConversationFactory.create_batch(5, client=client, channel_account=None)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO conversations (id, {columns}) SELECT gen_random_uuid(), {columns} "
            "FROM conversations, generate_series(1, 3000) WHERE status = 'closed'"
        )
        cursor.execute("ANALYZE conversations")
    due = [f"SELECT s.id {due}" for due in (*map(deadlines.sweep_due, deadlines.SWEPT), retention.guests_due_sql())]
    for statement in (sweep.DUE_BY_KIND, *due):
        plan = "\n".join(line for (line,) in rows(f"EXPLAIN {statement}", timezone.now()))
        assert "Seq Scan on conversations" not in plan, plan
    assert Client.objects.count() == 1
