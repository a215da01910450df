"""A server of the cluster is away: its own clients wait, and everything goes on for the others."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import orjson
import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    Conversation,
    ConversationEvent,
    Event,
    EventDelivery,
    MessageTombstone,
    RetentionReport,
    StaffMail,
    Turn,
)
from conversations.models import RetentionRule as R
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.delivery import receipts_bulk
from conversations.services.desk import mails
from conversations.services.events import deliveries, endpoints, feed
from conversations.services.events.numbering import number_all
from conversations.services.figures import counting
from conversations.services.figures.counting import QUARTER, quarter_of
from conversations.services.history import archive, remember
from conversations.services.jobs import backlog, sweep
from conversations.services.retention import retention
from conversations.services.transitions import closing
from memory.models import Memory
from tests import bounds
from tests.citus.places import ONLY_IN_CLUSTER, away, server_of
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.reported import message, receipt, state
from tests.conversations.staff import signed_in, staff, superuser
from tests.conversations.test_retention import ended, keep
from tests.conversations.test_retention_rules import guest, turn_of
from tests.conversations.test_staff_mail import configure, wants
from tests.fakes.smtp import FakeMailServer
from tests.routes import WebServer

pytestmark = [*ONLY_IN_CLUSTER, pytest.mark.django_db(transaction=True)]
DAY = timedelta(days=1)


def kinds_of(client: Client) -> list[str]:
    return list(Event.objects.filter(client=client).order_by("position").values_list("kind", flat=True))


def refused(door: Door, method: str, path: str, body: Any = None) -> tuple[int, str | None]:
    """The status with which the door is refused, and after how many seconds it should come again."""
    answer = door.http.generic(
        *(method, path, b"" if body is None else orjson.dumps(body)),
        content_type="application/json",
        headers={"X-Service-API-Key": door.key},
    )
    return answer.status_code, answer.get("Retry-After")


# --- messages ---------------------------------------------------------------------------------------------------------
def test_its_clients_are_told_to_come_again_and_the_others_are_answered(both: Any, doors: Any) -> None:
    here, there = doors
    pk = there.says("Hello")["conversation_id"]
    reply_to_all()
    send_all()
    message_of_there = {"client_id": str(both[1].pk), "user_id": "ann", "message": "Hi"}
    with away(both[1]):
        said = here.says("Hello", message_id="m1")
        assert refused(there, "POST", "/webhooks/sms/inbound", message_of_there) == (503, "1")
        assert refused(there, "POST", "/webhooks/sms/inbound", {**message_of_there, "user_id": "new"}) == (503, "1")
        assert refused(there, "GET", f"/conversations/{pk}") == (503, "1")
        assert refused(there, "GET", "/conversations") == (503, "1")
        assert (reply_to_all(), send_all()) == (1, 1)
        assert len(here.get(f"/conversations/{said['conversation_id']}")["chunks"]) == 4
        assert sweep.sweep(timezone.now() + timedelta(minutes=11)).stale == 1
    again = {**message_of_there, "message_id": "m2"}
    for _ in bounds.rounds("Coming again", list, 20):
        status, envelope = there.call("POST", "/webhooks/sms/inbound", again)
        if status == 200:
            break
        time.sleep(0.5)
    assert envelope["data"]["conversation_id"] == pk


def test_receipts_in_bulk_move_the_others_messages(both: Any) -> None:
    here, there = (ChannelAccount.objects.get(client=each, channel="messenger") for each in both)
    ours, theirs = message(here), message(there)
    endpoints.create_endpoint(both[0], "https://example.com/events")
    number_all()

    def apply(account: ChannelAccount, about: Any) -> set[str]:
        return finish(receipts_bulk.apply(THIS_THREAD, account.client_id, account.pk, [receipt(about, "read")]))

    with away(both[1]):
        assert apply(here, ours) == {ours.provider_message_id}
        with pytest.raises(OperationalError):
            apply(there, theirs)
        number_all()
        assert state(ours)[0] == "read"
        assert kinds_of(both[0])[-1] == "delivery.updated"
    assert apply(there, theirs) == {theirs.provider_message_id}


# --- events -----------------------------------------------------------------------------------------------------------
def test_the_others_events_are_numbered_posted_and_read(both: Any, doors: Any, monkeypatch: Any) -> None:
    here, there = doors
    for door, client in zip(doors, both, strict=True):
        door.get("/events")
        endpoints.create_endpoint(client, f"https://{client.sub_domain}.example.com/events")
    there.says("Before")
    with away(both[1]):
        here.says("Hello")
        number_all()
        assert kinds_of(both[0]) == ["conversation.opened", "message.in"]
        for _ in range(2):  # the first of a conversation holds back the second
            now = timezone.now()
            posts = deliveries.claim(now, {}, 10)
            assert {post.client_id for post in posts} == {both[0].pk}
            deliveries.record([deliveries.Outcome(p.delivery_id, p.endpoint_id, 200, "") for p in posts], now)
        assert set(EventDelivery.objects.filter(client=both[0]).values_list("status", flat=True)) == {"delivered"}
        assert [each["type"] for each in here.get("/events")["items"]] == ["conversation.opened", "message.in"]
        readers = [feed.EventReader(each.pk, 0, [], private=False) for each in both]
        _read_with(monkeypatch, readers)
        assert [(event["position"]) for event in iter(readers[0].take, None)] == [1, 2]
        assert readers[1].take() is None
    number_all()
    assert kinds_of(both[1]) == ["conversation.opened", "message.in"]


def _read_with(monkeypatch: Any, readers: list[feed.EventReader]) -> None:
    """Give these readers what there is, once."""
    of_process = feed.EventFeed()
    monkeypatch.setattr(of_process, "_readers", set(readers))
    of_process._give()


def test_a_gap_is_not_closed_while_what_is_missing_may_be_there(both: Any, doors: Any) -> None:
    here, there = doors
    for door in doors:
        door.get("/events")
    there.says("Before")
    with away(both[1]):
        here.says("Hello")
        for _ in range(4):
            number_all()
    for _ in range(4):
        number_all()
    assert kinds_of(both[1]) == ["conversation.opened", "message.in"]


# --- jobs -------------------------------------------------------------------------------------------------------------
def test_the_others_conversations_are_remembered_and_archived(both: Any, doors: Any) -> None:
    for door in doors:
        pk = door.says("I want a red roof", message_id="m1", phone="+51999000077")["conversation_id"]
        reply_to_all()
        send_all()
        closing.close(pk, ended_by="system", actor=SYSTEM, now=timezone.now(), reason="done")
    later = timezone.now() + 6 * DAY  # while tombstones are still written
    Client.objects.update(archive_after=timedelta(days=5))
    with away(both[1]):
        remember.remember_ended()
        assert archive.archive(later) == 1
        ours = Conversation.objects.get(client=both[0])
        assert ours.status == "archived"
        assert not Chunk.objects.filter(client=both[0]).exists()
        assert MessageTombstone.objects.filter(client=both[0]).count() == 1
        line = ConversationEvent.objects.get(client=both[0], kind="archived")
        assert (line.from_status, line.cause, line.actor_name) == ("closed", "archive_after is over", "archive")
        assert line.data["rule"] == "archive_after"
        assert line.data["seconds"] == 5 * 86_400
    remember.remember_ended()
    assert archive.archive(later) == 1


@pytest.mark.parametrize("rule", [R.GUESTS, R.SESSIONS, R.TURNS, R.MEMORY])
def test_the_others_rows_are_deleted_by_retention(both: Any, doors: Any, rule: R) -> None:
    for client in both:
        keep(client, rule, 5)
        if rule == R.TURNS:
            turn_of(ended(client, 9))
        elif rule == R.MEMORY:
            session = ended(client, 9)
            Memory.objects.create(
                client_id=client.pk,
                channel="sms",
                started_at=session.ended_at,
                ended_at=session.ended_at,
                conversation_id=session.pk,
                contact_id=session.contact_id,
            )
        else:
            (guest if rule == R.GUESTS else ended)(client, 9)
    with away(both[1]):
        done = retention.run(timezone.now(), by="test", rules=[rule])
        assert {pk: line.deleted for (pk, _), line in done.lines.items() if line.deleted} == {both[0].pk: 1}
        assert done.lines[both[1].pk, rule].error == "database_away"
        assert RetentionReport.objects.filter(client=both[1]).exists()
        told = ConversationEvent.objects.filter(client=both[0], kind=f"{rule.value}_deleted")
        assert told.count() == (1 if rule in (R.TURNS, R.MEMORY) else 0)
    assert retention.run(timezone.now(), by="test", rules=[rule]).deleted(rule) == 1
    assert not Turn.objects.exists()


def test_guests_of_the_others_are_purged_by_the_sweep(both: Any) -> None:
    for client in both:
        guest(client, 9)
    with away(both[1]):
        assert sweep.sweep(timezone.now()).purged == 1
        reports = RetentionReport.objects.count()
        assert sweep.sweep(timezone.now()).purged == 0
        assert RetentionReport.objects.count() == reports, "it would be one every few minutes"
    assert sweep.sweep(timezone.now()).purged == 1


def test_the_others_figures_are_counted(both: Any, doors: Any) -> None:
    for door in doors:
        door.says("Hello")
    since = quarter_of(timezone.now()) - QUARTER
    with away(both[1]):
        assert counting.count(since, since + 3 * QUARTER) == 1


def test_the_others_staff_get_their_mails(both: Any, doors: Any, settings: Any) -> None:
    for client in both:
        wants(staff(f"of-{client.sub_domain}", **{client.sub_domain: Role.AGENT}))
    for door in doors:
        door.says("Hello")
    Conversation.objects.filter(client=both[0]).update(needs_staff_since=timezone.now() - timedelta(hours=1))
    with FakeMailServer() as server, away(both[1]):
        configure(settings, server.port)
        assert mails.tell(timezone.now()) == 1
        mails.delete_old(timezone.now())
        assert StaffMail.objects.filter(client=both[0]).get().state == StaffMail.State.SENT


# --- what is seen of all ----------------------------------------------------------------------------------------------
def test_the_backlog_and_the_metrics_are_those_of_the_others(both: Any, doors: Any, settings: Any) -> None:
    settings.METRICS_KEY = "a-key"
    for door in doors:
        door.says("Hello")
    with away(both[1]):
        found = backlog.backlog(None, timezone.now())
        assert [each.client_id for each in found.clients] == [both[0].pk]
        for path in ("/health/backlog", "/metrics"):
            answer = WebServer().call("GET", path, headers={"Authorization": "Bearer a-key"})
            assert answer.status == 200, answer.body
            assert b"here" in answer.body


def test_a_superuser_sees_the_dashboard_and_the_others_conversations(both: Any, doors: Any) -> None:
    for door in doors:
        door.says("Hello")
    boss = signed_in(superuser())
    page = boss.get(reverse("admin:index"))
    assert page.status_code == 200
    own = signed_in(staff("ann", here=Role.MANAGER))
    with away(both[1]):
        assert own.get(reverse("admin:index")).status_code == 200
        assert own.get(reverse("admin:conversations_conversation_changelist")).status_code == 200
        assert boss.get(reverse("admin:index")).status_code == 200


# --- in the very moment -----------------------------------------------------------------------------------------------
def end_connections_of(client: Client) -> None:
    """End what the coordinator has open to the client's server, as a server that is stopped does."""
    place = {**connection.settings_dict, "PORT": server_of(client)}
    other = psycopg.connect(host=place["HOST"], port=place["PORT"], user=place["USER"], dbname=place["NAME"])
    with other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name LIKE 'citus_internal%' AND usename = current_user AND pid <> pg_backend_pid()"
        )
    other.close()


def test_a_server_that_is_lost_at_the_commit_is_no_success(both: Any) -> None:
    @transaction.atomic
    def write() -> None:
        Contact.objects.create(client=both[1], user_id="new")
        end_connections_of(both[1])

    with pytest.raises(OperationalError):
        write()
    assert not Contact.objects.filter(client=both[1]).exists()
