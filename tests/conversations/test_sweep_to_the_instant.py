"""The sweep at the very instant of each deadline, what it writes, and what it leaves alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Client, Contact, Conversation, IdempotencyKey, Message, SendPause
from conversations.models import RetentionRule as R
from conversations.services.core.sql import rows
from conversations.services.history import archive
from conversations.services.jobs import sweep
from tests import factories
from tests.conversations.test_outbox_rows import STATUSES, message_of, unsettled
from tests.conversations.test_retention import keep
from tests.conversations.test_second_looks_of_sweep import remembered

pytestmark = pytest.mark.django_db

TICK = timedelta(microseconds=1)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
THEN = timezone.now() - 30 * DAY


@pytest.fixture
def client(db: Any) -> Client:
    """A client whose conversations are stale after an hour and expire after a day."""
    return factories.ClientFactory(stale_after=HOUR, expire_after=DAY)


def session(client: Client, **more: Any) -> Conversation:
    return factories.ConversationFactory(client=client, **{"last_message_at": THEN, **more})


def swept(at: datetime) -> dict[str, int]:
    report = sweep.sweep(at)
    return {what: count for what in ("stale", "expired", "handed_back") if (count := getattr(report, what))}


def announced(at: datetime) -> dict[str, int]:
    report = sweep.preview(at)
    return {what: count for what in ("stale", "expired", "handed_back") if (count := getattr(report, what))}


# --- the instant ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row", "what", "at"),
    [
        ({}, "stale", THEN + HOUR),
        ({"status": "stale"}, "expired", THEN + DAY),
        ({}, "expired", THEN + DAY),
        ({"status": "stale", "handed_back_at": THEN + HOUR}, "expired", THEN + HOUR + DAY),
        ({"status": "stale", "handed_back_at": THEN - HOUR}, "expired", THEN + DAY),
        ({"handed_back_at": THEN + HOUR}, "stale", THEN + 2 * HOUR),
        ({"status": "stale", "extended_until": THEN + 3 * DAY}, "expired", THEN + 3 * DAY),
        ({"status": "stale", "extended_until": THEN + HOUR}, "expired", THEN + DAY),
        ({"taken_over_at": THEN, "taken_over_until": THEN + 5 * DAY}, "handed_back", THEN + 5 * DAY),
    ],
)
def test_what_is_due_happens_at_its_instant_and_not_before(client, row, what, at):
    if what == "expired" and row.get("status") != "stale":
        Client.objects.update(stale_after=DAY)  # both at once: it expires
    session(client, **row)
    assert (announced(at - TICK), swept(at - TICK)) == ({}, {})
    assert (announced(at), swept(at)) == ({what: 1}, {what: 1})
    assert swept(at) == {}


def test_a_cluster_finds_of_each_client_what_is_found_of_all_elsewhere(client):
    other = factories.ClientFactory(stale_after=HOUR, expire_after=DAY)
    at = THEN + DAY
    for each in (client, other):
        session(each, last_message_at=at)
        session(each, last_message_at=at - HOUR)
        session(each, status="stale")
        session(each, last_message_at=at, taken_over_at=THEN, taken_over_until=at)
    found = {(due, pk): set(ids) for due, pk, ids in rows(sweep.DUE_BY_KIND, at)}
    assert {due for due, _ in found} == {"stale", "expired", "handed_back"}
    assert {len(ids) for ids in found.values()} == {1}
    for each in (client, other):
        of_client = {(due, pk): set(ids) for due, pk, ids in rows(sweep.DUE_OF_CLIENT_BY_KIND, at, each.pk)}
        assert of_client == {key: ids for key, ids in found.items() if key[1] == each.pk}


def test_what_is_remembered_is_archived_at_its_instant_and_not_before(shop):
    found = remembered(shop)
    at = found.ended_at + shop.archive_after
    assert archive.count_due(at - TICK) == (0, [])
    assert archive.archive(at - TICK) == 0
    assert archive.count_due(at) == (1, [str(found.pk)])
    assert archive.archive(at) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"status": "closed", "ended_at": THEN, "ended_by": "user"},
        {"channel": "web", "thread": "1"},
        {"channel": "web", "thread": "1", "status": "stale"},
        {"taken_over_at": THEN},
        {"taken_over_at": THEN, "status": "stale"},
        {"taken_over_at": THEN, "taken_over_until": THEN + 40 * DAY},
        {"last_message_at": THEN + 30 * DAY, "started_at": THEN},
    ],
)
def test_what_does_not_age_stays_as_it_is(client, row):
    found = session(client, **row)
    before = Conversation.objects.values().get()
    at = THEN + 30 * DAY
    assert (announced(at), swept(at)) == ({}, {})
    assert Conversation.objects.values().get(pk=found.pk) == before


def test_a_client_s_times_are_for_its_own_conversations(client):
    patient = factories.ClientFactory(stale_after=20 * DAY, expire_after=25 * DAY)
    for status in ("active", "stale"):
        session(client, status=status)
        session(patient, status=status)
    assert swept(THEN + 2 * DAY) == {"expired": 2}
    assert set(Conversation.objects.filter(status="expired").values_list("client", flat=True)) == {client.pk}
    assert swept(THEN + 20 * DAY) == {"stale": 1}


# --- what it writes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_guest", [True, False])
@pytest.mark.parametrize("before", ["active", "stale"])
def test_what_expires_has_ended_is_to_be_remembered_and_says_why(client, before, is_guest):
    keep(client, R.GUESTS, 9)
    found = session(client, status=before, is_guest=is_guest)
    at = THEN + 2 * DAY
    sweep.sweep(at)
    found.refresh_from_db()
    assert (found.status, found.ended_at, found.ended_by) == ("expired", at, "timeout")
    assert found.end_reason == "no message within expire_after"
    assert found.remember_due_at == (None if is_guest else at)
    event = found.events.get()
    assert (event.kind, event.from_status, event.to_status) == ("expired", before, "expired")
    assert (event.cause, event.actor, event.actor_name) == ("no message within expire_after", "system", "sweep")
    assert (event.data["rule"], event.data["seconds"]) == ("expire_after", 86_400)
    assert datetime.fromisoformat(event.data["since"]) == THEN


def test_what_is_stale_says_why(client):
    found = session(client)
    sweep.sweep(THEN + 2 * HOUR)
    event = found.events.get()
    assert (event.kind, event.from_status, event.to_status) == ("stale", "active", "stale")
    assert (event.data["rule"], event.data["seconds"]) == ("stale_after", 3_600)


def test_what_expires_cancels_what_waits_in_it_and_nothing_else(client):
    found, other = session(client), session(client, last_message_at=THEN + 2 * DAY)
    waiting = [message_of(found, status=status, lease_until=THEN) for status in ("queued", "claimed")]
    spared = [message_of(found, status=status) for status in set(STATUSES) - {"queued", "claimed"}]
    spared.append(message_of(other))
    before = unsettled(*spared)
    sweep.sweep(THEN + 2 * DAY)
    assert {each[:2] for each in unsettled(*waiting).values()} == {("cancelled", "expired")}
    assert set(Message.objects.values_list("lease_until", "lease_token")) == {(None, None)}
    assert unsettled(*spared) == before


def test_batches_are_counted_as_they_end(client, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 2)
    for _ in range(5):
        session(client)
    seen: list[tuple[str, int]] = []
    report = sweep.sweep(THEN + 2 * HOUR, lambda what, count: seen.append((what, count)))
    assert seen == [("stale", 2), ("stale", 4), ("stale", 5)]
    assert (report.stale, report.expired, report.purged, report.recovered, report.replayed) == (5, 0, 0, 0, 0)
    assert (report.tombstones, report.handed_back, report.skipped) == (0, 0, False)
    assert Conversation.objects.filter(status="stale").count() == 5


def test_it_deletes_what_has_expired_of_keys_and_pauses(shop):
    now = timezone.now()
    account = shop.channel_accounts.first()
    for ago in (2 * HOUR, -HOUR):
        SendPause.objects.create(channel_account=account, to_address=str(ago), until=now - ago)
        IdempotencyKey.objects.create(client=shop, key=str(ago), fingerprint=b"", expires_at=now - ago)
    sweep.sweep(now)
    assert [pause.to_address for pause in SendPause.objects.all()] == [str(-HOUR)]
    assert [key.key for key in IdempotencyKey.objects.all()] == [str(-HOUR)]


def test_it_recovers_what_dead_processes_held(client):
    found = session(client, last_message_at=timezone.now())
    for status in ("claimed", "claimed", "sending"):
        message_of(found, status=status, lease_until=THEN)
    assert sweep.sweep(timezone.now()).recovered == 3


# --- the preview ------------------------------------------------------------------------------------------------------
def test_a_preview_counts_all_and_names_three(client):
    theirs = {str(session(client).pk) for _ in range(5)}
    report = sweep.preview(THEN + 2 * HOUR)
    assert (report.stale, report.expired, report.purged) == (5, 0, 0)
    assert len(report.examples["stale"]) == 3
    assert set(report.examples["stale"]) < theirs
    assert sweep.preview(THEN + 2 * HOUR, examples=1).examples["expired"] == []


@pytest.mark.parametrize(("days", "purged"), [(0, 2), (1, 1)])
def test_a_preview_names_the_guests_that_expire_and_go_at_once(client, days, purged):
    keep(client, R.GUESTS, days)
    gone = session(client, is_guest=True, status="expired", ended_at=THEN, ended_by="timeout")
    going = session(client, is_guest=True)
    session(client)
    session(client, is_guest=True, hold_reason="Case 1")
    held = session(client, is_guest=True)
    Contact.objects.filter(pk=held.contact_id).update(hold_reason="Case 2")
    factories.ContactFactory(client=client)
    report = sweep.preview(THEN + 2 * DAY)
    assert (report.expired, report.purged) == (4, purged)
    assert set(report.examples["purged"]) == {str(gone.pk)} | ({str(going.pk)} if purged == 2 else set())
    assert sweep.sweep(THEN + 2 * DAY).purged == purged
