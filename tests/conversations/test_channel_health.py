"""An account that is refused waits for new credentials; one that is throttled waits, and nobody else for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from channels_out.simulators import orb
from conversations.models import ChannelAccount, Conversation, Message, SendPause, StaffAction
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.jobs import overdue, sweep
from conversations.services.tenants import setup
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, page_of, sign_in
from tests.conversations.orb_door import post
from tests.fakes.orb import FakeGateway
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db


def say(gateway, device, words="Hello"):
    """The device is owed an answer, which is queued."""
    assert post(gateway, orb.said(gateway.name, device, words))[0] == 200
    reply_to_all()
    return Message.objects.order_by("chunk_id").last()


def states():
    return list(Message.objects.order_by("chunk_id").values_list("status", flat=True))


def over():
    SendPause.objects.update(until=timezone.now())
    Message.objects.filter(status="queued").update(due_at=timezone.now())


# --- refused ---------------------------------------------------------------------------------------------------------
def test_a_refused_account_waits_without_burning_tries_and_staff_see_it(gateway, orb_account, shop):
    for device in ("a", "b", "c"):
        say(gateway, device)
    token, ids = claiming.claim(timezone.now(), 10)
    gateway.fail_next(Fault(status=401))
    sendings = [delivery.begin(pk, token, timezone.now()) for pk in ids[:1]]
    from conversations.services.delivery.sending import deliver

    delivery.record_failed(sendings[0], deliver(sendings[0]), timezone.now())
    assert [delivery.begin(pk, token, timezone.now()) for pk in ids[1:]] == [None, None], "they were claimed already"
    assert states() == ["queued"] * 3
    assert set(Message.objects.values_list("attempts", flat=True)) == {0}
    assert send_all() == 0
    assert overdue.oldest_overdue().late == ""
    orb_account.refresh_from_db()
    assert orb_account.health == "broken"
    session = Conversation.objects.get(chunks__messages=ids[0].message_id)
    assert session.events.filter(kind="account_broken", cause="http_401").count() == 1

    mona = sign_in("mona", shop, "manager")
    assert b"waits: the account is refused" in mona.get(page_of(session)).content
    assert b"Try again" in mona.get(page_of(session)).content
    assert b"http_401" in mona.get(reverse("admin:conversations_channelaccount_changelist")).content
    assert b"health__exact=broken" in mona.get(reverse("admin:index")).content

    status, said = do(mona, session, "resume-account")
    assert (status, said["said"]) == (200, "The account is tried again. Messages that wait to be sent: 3.")
    assert StaffAction.objects.get().verb == "resumed"
    assert send_all() == 3
    assert states() == ["sent"] * 3


def test_one_try_is_enough_to_see_that_it_is_still_refused(gateway, orb_account, shop):
    say(gateway, "a")
    gateway.fail_next(Fault(status=401), times=2)
    send_all()
    page = reverse("admin:conversations_channelaccount_change", args=[orb_account.pk]).replace("/change/", "/resume/")
    assert sign_in("agnes", shop, "agent").post(page).status_code == 403
    assert ChannelAccount.objects.get(pk=orb_account.pk).health == "broken"
    sign_in("mona", shop, "manager").post(page)
    assert ChannelAccount.objects.get(pk=orb_account.pk).health == "ok"
    assert send_all() == 1
    assert ChannelAccount.objects.get(pk=orb_account.pk).health == "broken"


def test_the_refusal_of_old_credentials_does_not_break_the_new_ones(gateway, orb_account):
    say(gateway, "a")
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    setup.create_channel_account(
        orb_account.client,
        channel="orb",
        provider="orb",
        address=gateway.name,
        credentials={"secret": orb.new_secret()},
    )
    from channels_out.errors import SendError

    delivery.record_failed(sending, SendError("Refused.", code="http_401", account_broken=True), timezone.now())
    orb_account.refresh_from_db()
    assert (orb_account.health, states()) == ("ok", ["queued"])


# --- throttled -------------------------------------------------------------------------------------------------------
def test_a_throttled_account_waits_as_long_as_it_is_told_and_holds_up_no_other(gateway, orb_account, shop):
    with FakeGateway("cellar") as other:
        setup.create_channel_account(
            shop,
            channel="orb",
            provider="orb",
            address="cellar",
            credentials={"secret": other.secret},
            base_url=other.url,
        )
        first = say(gateway, "a")
        gateway.fail_next(Fault(status=429, headers={"Retry-After": "120"}))
        before = timezone.now()
        assert send_all() == 1
        say(gateway, "b")
        say(other, "c")
        assert send_all() == 1
        assert len(other.said) == 1
    assert states() == ["queued", "queued", "sent"]
    pause = SendPause.objects.get()
    assert (pause.channel_account, pause.to_address) == (orb_account, "")
    assert timedelta(seconds=120) <= pause.until - before < timedelta(seconds=140)
    first.refresh_from_db()
    assert (first.attempts, first.code) == (0, "http_429")
    assert overdue.oldest_overdue().late == ""
    over()
    send_all()
    assert states() == ["sent"] * 3


def test_a_throttled_pair_holds_up_nobody_else_of_the_account(gateway, orb_account):
    say(gateway, "a")
    gateway.fail_next(Fault(status=429, content={"code": "device_throttled"}, headers={"Retry-After": "120"}))
    send_all()
    say(gateway, "b")
    send_all()
    assert states() == ["queued", "sent"]
    assert SendPause.objects.get().to_address == "a"
    hears_again = Conversation.objects.get(device__address="a")
    from conversations.services.core.ledger import SYSTEM
    from conversations.services.transitions import closing

    closing.close(hears_again.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    say(gateway, "a", "A new session")
    assert send_all() == 0, "the pair waits, whatever the session"
    over()
    assert send_all() == 1


def test_without_a_word_of_the_provider_the_wait_grows_and_one_burst_counts_once(gateway, orb_account):
    for device in ("a", "b", "c"):
        say(gateway, device)
    waits = []
    for times in (1, 2, 3):
        gateway.fail_next(Fault(status=429), times=3)
        token, ids = claiming.claim(timezone.now(), 10)
        now = timezone.now()
        sendings = [delivery.begin(pk, token, now) for pk in ids]
        from conversations.services.delivery.sending import deliver

        for sending in sendings:
            delivery.record_failed(sending, deliver(sending), now)
        pause = SendPause.objects.get()
        waits.append(pause.until - now)
        assert pause.times == times
        over()
    assert waits[2] > waits[0]
    sweep.sweep(timezone.now() + timedelta(hours=2))
    assert not SendPause.objects.exists()
