"""An account whose provider hangs or cannot be reached is tried by one probe at a time, and comes back by itself."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from channels_out.contract import SendResult
from conversations.models import ChannelAccount, Message, SendCircuit
from conversations.services.delivery import circuits, claiming, recovery, sending
from conversations.services.jobs import forecast
from conversations.services.tenants import channel_accounts
from tests.claims import message_ids
from tests.conversations.back_office import sign_in
from tests.conversations.test_fair_claims import queued
from tests.fakes.server import Fault
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.fixture
def account(orb_account: ChannelAccount) -> ChannelAccount:
    """The shop's gateway is its only orb account."""
    ChannelAccount.objects.filter(client=orb_account.client, channel="orb", provider="sandbox").delete()
    return orb_account


@pytest.fixture
def patient(settings: Any) -> None:
    """Pauses that last, and so many attempts that no message fails."""
    settings.RETRY_BASE_SECONDS, settings.RETRY_MOST_SECONDS = 10, 10_000
    settings.SEND_ATTEMPTS = 50


def to_send(account: ChannelAccount, number: int = 10) -> list[Message]:
    return queued(account.client, number, channel="orb", channel_account=account, to_address="orb-7", to_kind="device")


def send(at: Any, most: int = 1) -> list[str]:
    """Send up to so many of what may be sent at the time, and return what became of each."""
    token, messages = claiming.claim(at, most)
    for claimed in messages:
        ready = sending.begin(claimed, token, at)
        assert ready is not None
        outcome = sending.deliver(ready)
        settle = sending.record_sent if isinstance(outcome, SendResult) else sending.record_failed
        settle(ready, outcome, at)
    return [Message.objects.get(pk=each.message_id).status for each in messages]


def opened(account: ChannelAccount) -> SendCircuit:
    """The account's circuit, after three messages in a row did not reach the gateway."""
    now = timezone.now()
    for message in to_send(account, circuits.OPEN_AFTER):
        circuits.note_failure(account.client_id, account.pk, message.pk, "connect", now)
    return SendCircuit.objects.get()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("fault", ["hangs", "refuses", "hangs up"])
def test_a_provider_that_is_away_gets_one_probe_at_a_time_with_growing_pauses(account, gateway, settings, fault):
    settings.PROVIDER_TIMEOUT_SECONDS = 0.3 if fault == "hangs" else 20
    now = timezone.now()
    to_send(account)
    if fault == "refuses":
        gateway.close()
    else:
        gateway.fail_next(Fault(hang=30, cut="before") if fault == "hangs" else Fault(cut="before"), times=9)
    for _ in range(circuits.OPEN_AFTER):
        assert SendCircuit.objects.filter(opened_at__isnull=False).count() == 0
        send(now)
    circuit = SendCircuit.objects.get()
    assert (circuit.client_id, circuit.channel_account_id, circuit.opened_at) == (account.client_id, account.pk, now)
    assert circuit.code == {"hangs": "timeout", "refuses": "connect", "hangs up": "connection_lost"}[fault]

    pauses = []
    for probes in range(1, 4):
        at = circuit.probe_at
        assert send(at - SECOND, 10) == []
        assert send(at, 10) == ["queued"], "one probe, whatever is free"
        circuit.refresh_from_db()
        assert (circuit.probes, circuit.probe) == (probes, None)
        pauses.append(circuit.probe_at - at)
    assert pauses[0] < pauses[2]
    assert pauses[2] >= 4 * 10 * SECOND / 2
    if fault != "refuses":
        assert len(gateway.requests) == circuits.OPEN_AFTER + 3


@pytest.mark.usefixtures("patient")
def test_a_probe_that_arrives_closes_it_and_everything_is_sent(account, gateway):
    messages = to_send(account)
    gateway.fail_next(Fault(cut="before"), times=circuits.OPEN_AFTER)
    now = timezone.now()
    for _ in range(circuits.OPEN_AFTER):
        send(now)
    at = SendCircuit.objects.get().probe_at
    assert send(at, 10) == ["sent"]
    assert not SendCircuit.objects.exists()
    send(at + HOUR, 20)
    assert {Message.objects.get(pk=each.pk).status for each in messages} == {"sent"}
    assert len(gateway.said) == len(messages)


@pytest.mark.usefixtures("patient")
def test_a_probe_that_is_answered_closes_it_whatever_the_answer(account, gateway):
    circuit = opened(account)
    gateway.fail_next(Fault(status=503))
    assert send(circuit.probe_at, 10) == ["queued"]
    assert not SendCircuit.objects.exists()


@pytest.mark.usefixtures("patient")
def test_the_forecast_says_why_a_message_waits(account):
    circuit = opened(account)
    conversation = Message.objects.first().conversation
    [coming] = [each for each in forecast.upcoming_events(conversation, circuit.opened_at) if each.what == "send"]
    assert coming.held_by == "the account's provider cannot be reached, and is tried by one message at a time"


@pytest.mark.usefixtures("patient")
def test_failures_count_in_a_row_only(account, gateway):
    to_send(account)
    now = timezone.now()
    for _ in range(3):
        gateway.fail_next(Fault(cut="before"), times=circuits.OPEN_AFTER - 1)
        for _ in range(circuits.OPEN_AFTER - 1):
            send(now)
        assert send(now) == ["sent"]
    assert not SendCircuit.objects.exists()


@pytest.mark.usefixtures("patient")
def test_a_provider_that_answers_is_reached_whatever_it_says(account, gateway):
    to_send(account)
    gateway.fail_next(Fault(status=503), times=8)
    assert send(timezone.now(), 8) == ["queued"] * 8
    assert not SendCircuit.objects.exists()


@pytest.mark.usefixtures("patient")
def test_sends_from_before_it_opened_lengthen_no_pause(account):
    now = timezone.now()
    messages = to_send(account)
    for message in messages[: circuits.OPEN_AFTER]:
        circuits.note_failure(account.client_id, account.pk, message.pk, "connect", now)
    probe_at = SendCircuit.objects.get().probe_at
    for message in messages[circuits.OPEN_AFTER :]:
        circuits.note_failure(account.client_id, account.pk, message.pk, "connect", now)
    circuit = SendCircuit.objects.get()
    assert (circuit.probe_at, circuit.probes, circuit.failures) == (probe_at, 0, len(messages))


@pytest.mark.usefixtures("patient")
def test_a_probe_that_is_not_sent_after_all_makes_room_for_another(account):
    circuit = opened(account)
    token, [claimed] = claiming.claim(circuit.probe_at, 10)
    assert message_ids(circuit.probe_at + SECOND, 10) == []
    Message.objects.filter(pk=claimed.message_id).update(status="cancelled")
    assert sending.begin(claimed, token, circuit.probe_at + SECOND) is None
    [other] = message_ids(circuit.probe_at + SECOND, 10)
    assert other != claimed.message_id


@pytest.mark.usefixtures("patient")
def test_a_probe_that_died_with_its_process_is_followed_by_another_later(account):
    circuit = opened(account)
    [message_id] = message_ids(circuit.probe_at, 10)
    circuit.refresh_from_db()
    assert circuit.probe == message_id
    recovery.recover(circuit.probe_at - SECOND)
    assert message_ids(circuit.probe_at - SECOND, 10) == []
    assert len(message_ids(circuit.probe_at, 10)) == 1


@pytest.mark.usefixtures("patient")
def test_staff_have_it_tried_at_once(account):
    opened(account)
    channel_accounts.resume(account)
    assert not SendCircuit.objects.exists()


@pytest.mark.usefixtures("patient")
def test_staff_see_that_a_provider_cannot_be_reached_and_when_it_is_tried(account, shop, neighbour):
    page, dashboard = reverse("admin:conversations_channelaccount_change", args=[account.pk]), reverse("admin:index")
    accounts = reverse("admin:conversations_channelaccount_changelist") + "?unreached=1"
    mona, other = sign_in("mona", shop, "manager"), sign_in("nora", neighbour, "manager")
    assert "They reach the provider." in mona.get(page).content.decode()
    circuit = opened(account)
    shown = mona.get(page).content.decode()
    assert "(connect). Messages wait." in shown
    assert f"next at {circuit.probe_at:%H:%M:%S} UTC: 0 tries so far" in shown
    assert str(account.pk) in mona.get(accounts).content.decode()
    numbers = {number.name: number.value for number in mona.get(dashboard).context["failures"]}
    assert numbers["Not reached"] == "1"
    numbers = {number.name: number.value for number in other.get(dashboard).context["failures"]}
    assert numbers["Not reached"] == "0"


@pytest.mark.usefixtures("patient")
def test_an_account_that_is_away_keeps_no_other_of_its_client_waiting(account, shop):
    circuit = opened(account)
    [other] = queued(shop, channel="whatsapp")
    assert message_ids(circuit.probe_at - SECOND, 10) == [other.pk]


@pytest.mark.usefixtures("patient")
def test_a_failure_of_an_account_that_is_deleted_changes_nothing(account):
    [message] = to_send(account, 1)
    pk = account.pk
    Message.objects.update(channel_account=None)
    account.delete()
    circuits.note_failure(message.client_id, pk, message.pk, "connect", timezone.now())
    circuits.note_success(message.client_id, pk)
    assert not SendCircuit.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("patient")
def test_of_two_dispatchers_one_sends_the_probe(account):
    circuit = opened(account)
    with not_committed(partial(claiming.claim, circuit.probe_at, 10)):
        assert message_ids(circuit.probe_at, 10) == []
    assert Message.objects.filter(status="claimed").count() == 1


def test_hosts_are_told_apart_by_name_and_port():
    host_of = partial(channel_accounts.host_of, "orb", is_simulated=False)
    assert host_of("http://Orb.example:81/x") == "orb.example:81"
    assert host_of("https://orb.example/y") == "orb.example"
    assert channel_accounts.host_of("sandbox", "", is_simulated=False) == ""
    assert channel_accounts.host_of("whatsapp", "", is_simulated=False) == "graph.facebook.com"
    assert channel_accounts.host_of("whatsapp", "", is_simulated=True) not in ("", "graph.facebook.com")
