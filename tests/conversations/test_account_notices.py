"""What Meta tells of an account itself reaches the account: its health, and a note to staff."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from channels_out.simulators.whatsapp import BUSINESS_ACCOUNT
from conversations.models import ChannelAccount, InboundEvent
from conversations.services.tenants import channel_accounts
from tests.conftest import send_all
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at, post
from tests.conversations.test_reply_window import messages, say, writes
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db

DISABLED = {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE", "waba_ban_date": "November 30, 2026"}}
REINSTATED = {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "REINSTATE"}}


def told(meta, value, field="account_update", business=BUSINESS_ACCOUNT, at=None):
    entry = {"id": business, "time": int(at or time.time() + 1), "changes": [{"field": field, "value": value}]}
    return post(meta.signed({"object": "whatsapp_business_account", "entry": [entry]}), "whatsapp")


def state(account):
    account.refresh_from_db()
    return account.health, account.notice


def test_a_disabled_account_is_broken_its_messages_wait_and_staff_read_why(meta, account, shop):
    writes(meta)
    assert told(meta, DISABLED) == (200, {"messages": 0, "receipts": 0, "recorded": 1})
    health, notice = state(account)
    assert (health, account.health_reason) == ("broken", notice)
    assert notice.startswith("Meta has disabled the WhatsApp Business account")
    kept = InboundEvent.objects.get()
    assert (kept.channel_account, kept.client, kept.reason, kept.kind) == (
        account,
        shop,
        "not_a_turn",
        "account_update",
    )
    say("Hello")
    assert send_all() == 0
    assert messages() == [("queued", "")]

    mona = sign_in("mona", shop, "manager")
    page = reverse("admin:conversations_channelaccount_change", args=[account.pk])
    assert b"Meta has disabled the WhatsApp Business account: appeal" in mona.get(page).content
    assert b"of providers about accounts, 24 hours" in mona.get(reverse("admin:index")).content

    told(meta, REINSTATED)
    assert state(account)[0] == "ok"
    assert send_all() == 1


@pytest.mark.parametrize(
    ("field", "value", "health", "notice"),
    [
        (
            "account_update",
            {"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "ADULT"}},
            "ok",
            "violation of its policies by the account: ADULT",
        ),
        (
            "account_update",
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_CUSTOMER_INITIATED_MESSAGING", "expiration": 1}],
            },
            "broken",
            "RESTRICTED_CUSTOMER_INITIATED_MESSAGING",
        ),
        (
            "account_update",
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING"}],
            },
            "ok",
            "RESTRICTED_BIZ_INITIATED_MESSAGING",
        ),
        (
            "message_template_quality_update",
            {
                "previous_quality_score": "GREEN",
                "new_quality_score": "RED",
                "message_template_name": "we_are_back",
                "message_template_language": "es_PE",
            },
            "ok",
            "the template we_are_back es_PE: RED",
        ),
        (
            "message_template_status_update",
            {"event": "PAUSED", "message_template_name": "we_are_back", "reason": "NONE"},
            "ok",
            "the template we_are_back: PAUSED",
        ),
        ("phone_number_quality_update", {"event": "DOWNGRADE", "current_limit": "TIER_50"}, "ok", "DOWNGRADE TIER_50"),
        ("account_review_update", {"decision": "REJECTED"}, "ok", "review of the WhatsApp Business account: REJECTED"),
        ("phone_number_name_update", {"decision": "<b>\x00", "rejection_reason": []}, "ok", "display name:"),
    ],
)
def test_each_kind_of_event_says_what_it_is(meta, account, field, value, health, notice):
    writes(meta)
    assert told(meta, value, field)[0] == 200
    found = state(account)
    assert found[0] == health
    assert notice in found[1]
    assert "<b>" not in found[1]


def test_it_is_about_the_numbers_of_that_business_account_alone(meta, account, neighbour):
    writes(meta)
    with FakeMeta("222", app_secret=meta.app_secret) as theirs:
        other = account_at(theirs, neighbour)
        ChannelAccount.objects.filter(pk=other.pk).update(business_id="999")
        told(meta, DISABLED)
        assert (state(account)[0], state(other)) == ("broken", ("ok", ""))
        told(meta, DISABLED, business="another")
        assert state(other) == ("ok", "")
        assert InboundEvent.objects.filter(reason="unknown_account").count() == 1


def test_the_only_account_of_the_app_is_meant_before_its_business_account_is_known(meta, account):
    told(meta, DISABLED)
    assert state(account)[0] == "broken"


def test_a_stranger_tells_nothing(meta, account):
    writes(meta)
    with FakeMeta(meta.phone_number_id, app_secret="another") as stranger:
        assert told(stranger, DISABLED)[0] == 403
    assert state(account) == ("ok", "")


def test_an_event_that_comes_late_or_twice_does_not_break_what_staff_mended(meta, account):
    writes(meta)
    before = time.time() - 60
    told(meta, DISABLED, at=before)
    channel_accounts.resume(account)
    told(meta, DISABLED, at=before)
    assert state(account)[0] == "ok"
    told(meta, {"decision": "APPROVED"}, "account_review_update")
    told(meta, DISABLED, at=before)
    assert "APPROVED" in state(account)[1]
    told(meta, DISABLED, at=time.time() + timedelta(minutes=1).total_seconds())
    assert state(account)[0] == "broken"
    assert account.notice_at > timezone.now()
