"""The waits before something is tried again: how long at least and at most, and what a provider asked for."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.utils import timezone

from channels_out.errors import SendError
from conversations.engines.contract import EngineError
from conversations.models import InboundEvent, Message, SendPause, Turn
from conversations.services.core.backoff import backoff
from conversations.services.core.sql import rows
from conversations.services.delivery import throttles
from conversations.services.inbound import replay
from conversations.services.replies import sinks
from convo_project import supervisor
from convo_project.supervisor import Child, Supervisor
from memory import rebuilding
from memory.stores.contract import StoreError

NOW = timezone.now()


@pytest.fixture(autouse=True)
def _bounds(settings):
    settings.RETRY_BASE_SECONDS, settings.RETRY_MOST_SECONDS = 2.0, 900.0


@pytest.fixture(params=[0.5, 1.0], ids=["least", "most"])
def lot(request, monkeypatch):
    """The share of the wait that chance leaves: the least, or all of it."""
    monkeypatch.setattr(random, "uniform", lambda low, high: {0.5: low, 1.0: high}[request.param])
    return request.param


@pytest.fixture
def whole(monkeypatch):
    """Chance takes nothing off a wait."""
    monkeypatch.setattr(random, "uniform", lambda _, high: high)


def seconds(number):
    return timedelta(seconds=number)


WAITS = [(1, 2), (2, 4), (3, 8), (9, 512), (10, 900), (11, 900), (1_025, 900), (32_767, 900)]


@pytest.mark.parametrize(("attempt", "wait"), WAITS)
def test_a_wait_doubles_up_to_the_longest_less_up_to_half_by_chance(lot, attempt, wait):
    assert backoff(attempt) == seconds(wait * lot)


@pytest.mark.parametrize("attempt", [0, -1])
def test_what_never_failed_waits_like_the_first_failure(whole, attempt):
    assert backoff(attempt) == seconds(2)


def test_chance_spreads_the_waits():
    assert len({backoff(3) for _ in range(50)}) > 10
    assert all(seconds(4) <= backoff(3) <= seconds(8) for _ in range(50))


@pytest.mark.parametrize(("asked", "wait"), [(None, 4), (0, 4), (1, 4), (4.5, 4.5), (3_600, 3_600)])
def test_a_wait_is_never_shorter_than_what_was_asked_for(whole, asked, wait):
    assert backoff(2, asked) == seconds(wait)


def test_the_settings_are_read_when_it_waits(settings, whole):
    settings.RETRY_BASE_SECONDS, settings.RETRY_MOST_SECONDS = 0.5, 1.0
    assert [backoff(attempt) for attempt in (1, 2, 3)] == [seconds(0.5), seconds(1), seconds(1)]


# --- replies ---------------------------------------------------------------------------------------------------------
def engine_error(**more):
    return EngineError("busy", code="busy", **{"retryable": True, **more})


@pytest.mark.parametrize(
    ("attempt", "error", "wait"),
    [
        (1, {}, 2),
        (2, {}, 4),
        (1, {"retry_after": 120}, 120),
        (1, {"retry_after": 120.5}, None),
        (2, {"retry_after": 1}, 4),
        (3, {}, None),
        (1, {"retryable": False}, None),
    ],
)
def test_a_reply_is_tried_again_so_many_times_and_waits_for_nobody_too_long(settings, whole, attempt, error, wait):
    settings.REPLY_ATTEMPTS = 3
    due = sinks.SendSink().retry_at(Turn(attempt=attempt), engine_error(**error), NOW, written="")
    assert due == (NOW + seconds(wait) if wait else None)


# --- sends -----------------------------------------------------------------------------------------------------------
def throttled(**more):
    return SendError("slowly", code="throttled", **{"throttled": "account", **more})


def pause(account, to, error, now):
    message = Message(client_id=account.client_id, channel_account_id=account.pk, to_address=to)
    return throttles.pause(message, error, now)


@pytest.mark.django_db
def test_a_throttled_account_waits_longer_each_time(shop, whole):
    account = shop.channel_accounts.first()
    now, waits = NOW, []
    for _ in range(3):
        until = pause(account, "1", throttled(), now)
        waits.append(until - now)
        now = until
    assert waits == [seconds(8), seconds(16), seconds(32)]


@pytest.mark.django_db
def test_what_was_being_sent_when_a_pause_began_counts_as_the_same_time(shop, whole):
    account = shop.channel_accounts.first()
    until = pause(account, "1", throttled(), NOW)
    assert pause(account, "2", throttled(), until - seconds(1)) == until - seconds(1) + seconds(8)
    assert SendPause.objects.get().times == 1


@pytest.mark.django_db
def test_a_throttle_that_comes_an_hour_later_counts_as_the_first(shop, whole):
    account = shop.channel_accounts.first()
    ended = pause(account, "1", throttled(), NOW)
    for later, wait in ((seconds(3_599), 16), (seconds(3_600), 8)):
        SendPause.objects.update(until=ended, times=1)
        assert pause(account, "1", throttled(), ended + later) == ended + later + seconds(wait)


@pytest.mark.django_db
@pytest.mark.parametrize(("asked", "wait"), [(None, 8), (0, 8), (1, 1), (90, 90)])
def test_a_pause_lasts_as_long_as_the_provider_asks(shop, whole, asked, wait):
    account = shop.channel_accounts.first()
    assert pause(account, "1", throttled(retry_after=asked), NOW) == NOW + seconds(wait)


@pytest.mark.django_db
def test_a_later_word_of_the_provider_shortens_no_pause(shop, whole):
    account = shop.channel_accounts.first()
    pause(account, "1", throttled(retry_after=90), NOW)
    assert pause(account, "1", throttled(retry_after=5), NOW) == NOW + seconds(90)


def is_paused(account_id, to, at):
    """Return whether a message of the account to this address would have to wait at that time."""
    not_paused = throttles.NOT_PAUSED.format(now="$3::timestamptz", client="m.client_id")
    [(is_free,)] = rows(
        f"SELECT {not_paused} FROM (SELECT id AS channel_account_id, client_id, $2::text AS to_address"
        " FROM channel_accounts WHERE id = $1) m",
        *(account_id, to, at),
    )
    return not is_free


@pytest.mark.django_db
def test_a_pause_holds_its_account_or_its_recipient_until_it_is_over(shop, neighbour, whole):
    account, other = shop.channel_accounts.first(), neighbour.channel_accounts.first()
    until = pause(account, "1", throttled(throttled="recipient"), NOW)
    just_before = until - timedelta(microseconds=1)
    assert [is_paused(account.pk, to, just_before) for to in ("1", "2")] == [True, False]
    assert not is_paused(account.pk, "1", until)
    pause(account, "1", throttled(), NOW)
    assert [is_paused(account.pk, to, just_before) for to in ("1", "2")] == [True, True]
    assert not is_paused(other.pk, "1", just_before)
    assert not is_paused(account.pk, "2", until)


@pytest.mark.django_db
def test_pauses_are_kept_as_long_as_they_count(shop, whole):
    account = shop.channel_accounts.first()
    until = pause(account, "1", throttled(), NOW)
    throttles.delete_expired(until + throttles.FORGOTTEN_AFTER)
    assert SendPause.objects.exists()
    throttles.delete_expired(until + throttles.FORGOTTEN_AFTER + timedelta(microseconds=1))
    assert not SendPause.objects.exists()


@pytest.mark.django_db
def test_the_pauses_of_others_make_nobody_wait_longer(shop, neighbour, whole):
    account, other = shop.channel_accounts.first(), neighbour.channel_accounts.first()
    for client in (account, other):
        SendPause.objects.create(channel_account=client, to_address="", until=NOW, times=5)
        SendPause.objects.create(channel_account=client, to_address="1", until=NOW, times=5)
    SendPause.objects.filter(channel_account=other, to_address="1").delete()
    to_one = throttled(throttled="recipient")
    assert pause(account, "2", to_one, NOW) == NOW + seconds(8)
    assert pause(other, "1", to_one, NOW) == NOW + seconds(8)
    assert pause(account, "1", to_one, NOW) == NOW + seconds(min(8 * 2**5, 900))


@pytest.mark.django_db
def test_the_pause_of_one_account_makes_the_client_s_others_wait_no_longer(shop, whole):
    account, other = shop.channel_accounts.all()[:2]
    SendPause.objects.create(channel_account=account, to_address="", until=NOW, times=5)
    assert pause(other, "1", throttled(), NOW) == NOW + seconds(8)


@pytest.mark.django_db
def test_a_provider_that_throttles_for_ever_does_not_overflow(shop, whole):
    account = shop.channel_accounts.first()
    SendPause.objects.create(channel_account=account, to_address="", until=NOW, times=1_000)
    assert pause(account, "1", throttled(), NOW) == NOW + seconds(900)
    assert SendPause.objects.get().times == 1_000


# --- events and memory -----------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_an_event_that_cannot_be_processed_waits_twice_as_long_each_time(shop, monkeypatch):
    event = InboundEvent.objects.create(
        client=shop, channel="sms", provider="plivo", reason="processing_failed", retry_at=NOW, raw={}, kind="several"
    )
    waits, now = [], NOW
    for _ in range(replay.RETRIES):
        replay.retry_failed(now)
        event.refresh_from_db()
        waits.append(event.retry_at and (event.retry_at - now) / timedelta(minutes=1))
        now = event.retry_at or now
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, None]


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(None, [2, 4, 8, 16]), (3, [3, 4, 8, 16]), (10, [10, 10, 10, 16]), (3_600, [60, 60, 60, 60])],
)
def test_rebuilding_waits_longer_before_each_attempt_and_a_minute_at_most(asked, waits):
    slept = []

    def fails():
        raise StoreError("busy", code="busy", retryable=True, retry_after=asked)

    with pytest.raises(StoreError):
        rebuilding._with_retries(fails, slept.append)
    assert slept == waits[: rebuilding.MAX_ATTEMPTS - 1]
    assert len(slept) == rebuilding.MAX_ATTEMPTS - 1


# --- processes -------------------------------------------------------------------------------------------------------
def test_a_process_that_keeps_dying_is_started_ever_later_until_it_settles(tmp_path, monkeypatch, capsys):
    clock = [1_000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(supervisor, "_kill_session", lambda child: None)
    monkeypatch.setattr(supervisor, "_how_it_ended", lambda child: "died")
    child = Child("web", ["web"])
    one = Supervisor(tmp_path, [child], lambda: None)
    waits = []
    lives = [0.0] * 8 + [supervisor.SETTLED_SECONDS, supervisor.SETTLED_SECONDS + 1, 0.0]
    for lived in lives:
        child.started_at = clock[0] - lived
        one._note_death(child)
        waits.append(child.start_at - clock[0])
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1]
    assert "starting it again in 0.5 s" in capsys.readouterr().out
