"""A person's choice at Meta about marketing messages is kept, and obeyed for templates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from conversations.models import Contact, Conversation, InboundEvent, Message
from tests.conftest import send_all
from tests.conversations.meta_doors import account_at, post
from tests.conversations.test_reply_window import messages, say, send_all_or_none, template, writes
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db

PERSON = "51999999999"


def chooses(meta: FakeMeta, value: str, at: int = 1, category: str = "marketing_messages", **who: Any) -> int:
    item = {"wa_id": PERSON, "detail": "User requested to stop", "category": category, "value": value, "timestamp": at}
    about = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001111", "phone_number_id": meta.phone_number_id},
        "contacts": [{"profile": {"name": "Ana"}, "wa_id": PERSON}],
        "user_preferences": [item | who],
    }
    entry = {"id": "1", "changes": [{"field": "user_preferences", "value": about}]}
    return post(meta.signed({"object": "whatsapp_business_account", "entry": [entry]}), "whatsapp")[0]


def test_after_stop_no_template_goes_and_after_resume_it_does(meta, account):
    template()
    writes(meta, ago=timedelta(hours=25))
    assert chooses(meta, "stop") == 200
    assert set(Contact.objects.get().opted_out) == {"whatsapp:marketing"}
    say("Good morning")
    assert send_all_or_none() == 0
    assert messages() == [("failed", "outside_window")]
    assert "want no marketing messages" in Message.objects.get().reason
    assert Conversation.objects.get().events.filter(kind="marketing_stopped").count() == 1

    assert chooses(meta, "resume", at=2) == 200
    assert chooses(meta, "stop", at=1) == 200, "delivered again"
    assert Contact.objects.get().opted_out == {}
    say("Good evening")
    send_all_or_none()
    assert [sent.template for sent in meta.sent] == ["we_are_back es_PE"]


def test_it_is_about_templates_alone(meta, account):
    writes(meta)
    chooses(meta, "stop")
    say("Here is your answer")
    send_all()
    assert [sent.text for sent in meta.sent] == ["Here is your answer"]


def test_a_template_that_waits_is_cancelled(meta, account):
    template()
    writes(meta, ago=timedelta(hours=25))
    say("Good morning")
    meta.throttle_next()
    send_all_or_none()
    assert Message.objects.get().template
    chooses(meta, "stop")
    Message.objects.update(due_at=Message.objects.get().created_at)
    from conversations.models import SendPause

    SendPause.objects.all().delete()
    send_all_or_none()
    assert messages() == [("cancelled", "no_marketing")]


def test_a_choice_of_somebody_unknown_is_kept_for_this_client_and_opens_no_conversation(meta, account, neighbour):
    with FakeMeta("222", app_secret=meta.app_secret) as theirs:
        account_at(theirs, neighbour)
        writes(theirs)
        chooses(meta, "stop")
    kept = {contact.client_id: set(contact.opted_out) for contact in Contact.objects.all()}
    assert kept == {account.client_id: {"whatsapp:marketing"}, neighbour.pk: set()}
    assert not Conversation.objects.filter(client=account.client).exists()


@pytest.mark.parametrize(
    "more",
    [{"value": "perhaps"}, {"value": None}, {"category": "other"}, {"wa_id": ["x"]}, {"wa_id": ""}, {"wa_id": "<b>"}],
)
def test_what_cannot_be_read_is_kept_and_changes_nothing(meta, account, more):
    assert chooses(meta, **({"value": "stop"} | more)) == 200
    assert InboundEvent.objects.get().kind == "user_preferences"
    assert not Contact.objects.exists()
