"""Bursts: who writes in pieces gets one answer, to all of them, soon."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from channels_out.kinds import AddressKind, Channel
from conversations.models import ChannelAccount, Chunk, Client, Conversation
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.inbound import messages
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import seed_helpers
from conversations.services.tenants import setup
from tests.conftest import reply_to_all
from tests.prompts import heard

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
T0 = timezone.now().replace(microsecond=0)


@pytest.fixture
def patient(shop):
    """The shop, which waits for the end of a burst as a new client does."""
    fresh = Client(name="New", sub_domain="new")
    Client.objects.filter(pk=shop.pk).update(quiet_windows=fresh.quiet_windows, longest_wait=fresh.longest_wait)
    shop.refresh_from_db()
    return shop


@pytest.fixture(params=["own json", "own json, slowly", "provider", "provider, slowly", "service"])
def says(request, patient, key):
    """Each way in which a message is appended: `says(text, seconds after T0)`. Slowly: not by the one statement."""
    from conversations.services.tenants import api_keys

    account = ChannelAccount.objects.get(client=patient, channel="sms")
    conversation_id = []

    def own_json(text, after):
        arrival = messages.InboundText("sms", Person(user_id="ann"), text, "", T0 + after * SECOND, scope="ann")
        if "slowly" in request.param:
            return messages.settle(patient, arrival)
        return finish(messages.settle_with_key(THIS_THREAD, arrival, api_keys.key_hash(key), patient.pk))[0]

    def provider(text, after):
        who = Person(address="+51999999999", kind=AddressKind.PHONE)
        arrival = messages.InboundText("sms", who, text, "", T0 + after * SECOND, scope="sms", account=account)
        if "slowly" in request.param:
            with transaction.atomic():
                return messages._settle(patient, arrival)
        return messages.settle(patient, arrival)

    def service(text, after):
        if not conversation_id:
            conversation_id.append(own_json(text, after).conversation_id)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(seed_helpers.timezone, "now", lambda: T0 + after * SECOND)
            seed_helpers.append_chunk(conversation_id[0], "user", text)

    return {"own": own_json, "provider": provider, "service": service}[request.param.split(" ")[0].strip(",")]


def due():
    return (Conversation.objects.get().reply_due_at - T0) / SECOND


def test_each_message_extends_the_wait_up_to_the_longest(says):
    says("one", 0)
    assert due() == 1.5
    says("two", 1)
    assert due() == 2.5
    for after in (2, 3, 4, 5):
        says("more", after)
    assert due() == 6, "the longest wait counts from the first"
    says("late", 5.9)
    assert due() == 6
    assert leases.claim(T0 + 5.8 * SECOND, 10) == []

    [turn] = leases.claim(T0 + 6 * SECOND, 10)
    request, _ = pipeline.prepare(turn)
    assert heard(request.prompt.messages) == ["one", "two", "more", "more", "more", "more", "late"]


def test_an_answer_ends_the_burst(says):
    says("one", 0)
    [turn] = leases.claim(T0 + 2 * SECOND, 10)
    pipeline.prepare(turn)
    from conversations.engines.contract import Reply

    pipeline.commit(turn, Reply("Hi", "offline"), T0 + 3 * SECOND)
    assert Conversation.objects.get().burst_began_at is None
    says("two", 10)
    assert due() == 11.5


def test_ten_messages_in_a_second_get_one_reply_that_saw_all_ten(door, patient):
    for number in range(10):
        door.says(f"word {number}")
    assert reply_to_all() == 0, "the burst may go on"
    Conversation.objects.update(reply_due_at=timezone.now())
    assert reply_to_all() == 1
    prompt = Conversation.objects.get().turns.get().prompt["messages"]
    assert heard(prompt) == [f"word {number}" for number in range(10)]
    assert Chunk.objects.filter(role="ai").count() == 1


def test_of_a_burst_longer_than_the_history_all_is_seen(door):
    door.says("hello")
    reply_to_all()
    for number in range(25):
        door.says(f"word {number}")
    assert reply_to_all() == 1
    prompt = Conversation.objects.get().turns.order_by("started_at").last().prompt["messages"]
    assert heard(prompt) == [f"word {number}" for number in range(25)]


def test_a_call_and_a_page_wait_for_nothing(patient):
    assert {str(channel): patient.quiet_window(channel) / SECOND for channel in Channel} == {
        **dict.fromkeys(["messenger", "whatsapp", "sms", "orb"], 1.5),
        **dict.fromkeys(["voice", "web"], 0),
    }


def test_the_client_says_how_long(door, patient):
    patient.quiet_windows = {"sms": 20}
    patient.longest_wait = 30 * SECOND
    patient.save()
    before = timezone.now()
    door.says("one")
    said = door.get(f"/conversations/{Conversation.objects.get().pk}")
    assert 19 < (Conversation.objects.get().reply_due_at - before) / SECOND < 25
    assert said["reply_due_at"] is not None


@pytest.mark.parametrize("windows", [{"sms": "2"}, {"sms": -1}, {"sms": 61}, {"sms": None}, [1], {"sms": {"a": 1}}])
def test_what_is_no_number_of_seconds_is_refused(patient, windows):
    patient.quiet_windows = windows
    with pytest.raises(ValidationError):
        patient.full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        patient.save()


def test_an_append_stays_a_heap_only_update(door, patient):
    """The due time changes with every message, and no index knows it."""

    def heap_only():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_get_xact_tuples_hot_updated('conversations'::regclass)")
            return cursor.fetchone()[0]

    door.says("one")
    before = heap_only()
    for number in range(5):
        door.says(f"more {number}")
    assert heap_only() - before == 5


def test_a_client_made_by_command_waits_too(db):
    client = setup.create_client("Hats", "hats")
    client.refresh_from_db()
    assert client.quiet_window("whatsapp") == 1.5 * SECOND
    assert client.longest_wait == 6 * SECOND


def test_a_manager_sets_the_windows_channel_by_channel_and_others_read_them(patient, manager, viewer):
    page = f"/admin/conversations/client/{patient.pk}/change/"
    fields = {f"quiet_{channel}": "0" for channel in Channel} | {"quiet_whatsapp": "2.5", "quiet_sms": ""}
    spans = {
        "stale_after": "10 minutes",
        "expire_after": "1 day",
        "archive_after": "30 days",
        "hand_back_after": "1 hour",
        "when_away": "ask",
    }
    fields |= spans | {"longest_wait": "8 seconds", "auto_reply": "on", "default_goal": "Help"}
    assert manager.post(page, fields).status_code == 302
    patient.refresh_from_db()
    assert patient.quiet_windows == {str(channel): 2.5 if channel == "whatsapp" else 0 for channel in Channel}
    assert (patient.longest_wait, patient.hand_back_after) == (8 * SECOND, timedelta(hours=1))
    assert manager.post(page, {**fields, "quiet_web": "-1"}).status_code == 200
    assert manager.post(page, {**fields, "quiet_web": "nan"}).status_code == 200
    assert "whatsapp 2.5" in viewer.get(page).content.decode()
