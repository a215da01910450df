"""A process that is not running shows where staff look, and says what is to be done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone
from django_q.models import Schedule

from conversations.models import Client, Conversation, Message, Turn
from conversations.queue import set_up_schedules
from conversations.services.jobs import overdue
from conversations.services.replies import leases
from conversations.services.simulator import accounts
from tests.conftest import Door, reply_to_all
from tests.conversations.back_office import news, page_of

pytestmark = pytest.mark.django_db

MISSING = "manage.py dispatch"


def ago(**span: Any) -> Any:
    return timezone.now() - timedelta(**span)


@pytest.fixture
def waits(door: Door) -> Conversation:
    """Somebody wrote five minutes ago, and no dispatcher runs."""
    pk = door.says("Is anybody there?")["conversation_id"]
    Conversation.objects.filter(pk=pk).update(reply_due_at=ago(minutes=5))
    return Conversation.objects.get(pk=pk)


def first_page(http: HttpClient) -> str:
    return http.get(reverse("admin:index")).content.decode()


def test_a_reply_that_nobody_writes_shows_on_the_first_page_and_on_the_session_s(
    viewer: HttpClient, waits: Conversation
) -> None:
    assert MISSING in first_page(viewer)
    assert MISSING in viewer.get(page_of(waits)).content.decode()
    assert MISSING in news(viewer, waits).json()["sections"]["takeover"]
    reply_to_all()
    Message.objects.update(due_at=timezone.now())
    assert MISSING not in first_page(viewer)
    assert MISSING not in viewer.get(page_of(waits)).content.decode()


def test_one_that_is_being_written_or_just_came_does_not(viewer: HttpClient, waits: Conversation) -> None:
    leases.claim(timezone.now(), 1)
    assert MISSING not in first_page(viewer) + viewer.get(page_of(waits)).content.decode()
    Turn.objects.all().delete()
    Conversation.objects.update(reply_due_at=ago(seconds=2))
    assert MISSING not in first_page(viewer) + viewer.get(page_of(waits)).content.decode()


def test_one_whose_dispatcher_died_at_it_does(viewer: HttpClient, waits: Conversation) -> None:
    leases.claim(timezone.now(), 1)
    Turn.objects.update(lease_until=ago(minutes=4))
    assert "dispatcher" in overdue.oldest_overdue().late
    assert MISSING in viewer.get(page_of(waits)).content.decode()


def test_a_streamed_one_does_as_well(viewer: HttpClient, door: Door) -> None:
    pk = door.says("Hello")["conversation_id"]
    Conversation.objects.filter(pk=pk).update(channel="web", reply_owed=False, reply_due_at=None)
    Turn.objects.create(
        conversation=Conversation.objects.get(pk=pk),
        streamed=True,
        attempt=0,
        inbound_sequence=1,
        started_at=ago(minutes=3),
        lease_until=ago(minutes=3),
    )
    assert MISSING in viewer.get(page_of(Conversation.objects.get(pk=pk))).content.decode()


def test_a_message_that_nobody_sends_says_since_when(viewer: HttpClient, waits: Conversation) -> None:
    reply_to_all()
    assert "waiting to be sent, since" not in viewer.get(page_of(waits)).content.decode()
    Message.objects.update(due_at=ago(minutes=5))
    assert "waiting to be sent, since" in viewer.get(page_of(waits)).content.decode()
    assert MISSING in first_page(viewer)


def test_the_simulator_says_why_no_answer_comes(manager: HttpClient, shop: Client, waits: Conversation) -> None:
    account = next(each for each in accounts.set_up(shop) if each.provider == "plivo" and each.channel == "sms")
    page = reverse("admin:simulator_play", args=[account.pk])
    assert MISSING not in manager.get(page).content.decode()
    person = manager.get(page).context["person"]
    played = Conversation.objects.get(pk=waits.pk)
    address = accounts.simulator_of(account).address_of(person)
    played.contact.identities.create(client=shop, channel="sms", kind="phone", address=address)
    Conversation.objects.filter(pk=waits.pk).update(channel_account=account)
    assert MISSING in manager.get(page).content.decode()


def test_a_queue_that_does_not_run_shows_on_the_first_page(viewer: HttpClient, shop: Client) -> None:
    assert "qcluster" not in first_page(viewer)  # nothing is scheduled here: a host that has /cron
    set_up_schedules()
    assert "qcluster" not in first_page(viewer)
    Schedule.objects.filter(name="sweep").update(next_run=ago(minutes=30))
    assert "manage.py qcluster" in first_page(viewer)
