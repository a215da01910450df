"""Meta knows the recipient by another id than the number that we wrote to: it is one person, and STOP counts."""

from __future__ import annotations

from functools import partial

import pytest
from django.utils import timezone

from conversations.models import Assistant, Contact, ContactIdentity, ContactMatch, Conversation
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions.outreach import Outreach, start_outreach
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.meta_doors import post
from tests.races.threads import together

pytestmark = pytest.mark.django_db
DIALLED, WA_ID, USER_ID = "541123456702", "5491123456702", "AR.1234"

account = meta_doors.account


def begins(meta, shop) -> Conversation:
    """Write to the person first. Meta answers with their other ids."""
    Assistant.objects.filter(client=shop).update(template_name="news", template_language="es_AR")
    meta.known_as[DIALLED] = {"wa_id": WA_ID, "user_id": USER_ID}
    wanted = Outreach(channel="whatsapp", phone="+54 11 2345-6702", goal="An unpaid invoice")
    conversation = start_outreach(shop, wanted, actor=SYSTEM, now=timezone.now())
    reply_to_all()
    send_all()
    assert [message.template for message in meta.sent if message.to == DIALLED] == ["news es_AR"]
    return conversation


def writes(meta, text: str, sender: str = WA_ID) -> None:
    status, outcome = post(meta.text_webhook(text, sender=sender), "whatsapp")
    assert status == 200, outcome


def test_the_person_who_answers_is_the_one_we_wrote_to(meta, account, shop):
    conversation = begins(meta, shop)
    writes(meta, "hi, about that debt")
    assert Contact.objects.count() == 1
    conversation.refresh_from_db()
    assert Conversation.objects.get() == conversation
    assert conversation.inbound_sequence == 1
    addresses = ContactIdentity.objects.values_list("kind", "address", "client")
    assert set(addresses) == {
        ("phone", DIALLED, shop.pk),
        ("phone", WA_ID, shop.pk),
        ("bsuid", USER_ID, shop.pk),
    }
    assert (reply_to_all(), send_all()) == (1, 1)
    assert meta.sent[-1].to == WA_ID, "the reply goes where they wrote from"


def test_stop_from_the_other_id_ends_what_we_send_to_the_number(meta, account, shop, door):
    conversation = begins(meta, shop)
    writes(meta, "STOP")
    assert list(Contact.objects.get().opted_out) == ["whatsapp"]
    status, envelope = door.call("POST", f"/conversations/{conversation.pk}/send", {"role": "ai", "content": "But…"})
    assert (status, envelope["code"]) == (409, "opted_out")


def test_an_id_of_somebody_else_stays_theirs_and_staff_see_the_pair(meta, account, shop):
    writes(meta, "hello")
    begins(meta, shop)
    assert Contact.objects.count() == 2
    assert ContactIdentity.objects.get(address=WA_ID).contact.user_id == WA_ID
    assert ContactMatch.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_answer_and_the_person_at_the_same_instant(meta, account, shop):
    Assistant.objects.filter(client=shop).update(template_name="news", template_language="es_AR")
    meta.known_as[DIALLED] = {"wa_id": WA_ID}
    start_outreach(shop, Outreach(channel="whatsapp", phone=f"+{DIALLED}"), actor=SYSTEM, now=timezone.now())
    reply_to_all()
    together(send_all, partial(writes, meta, "hello"))
    assert ContactIdentity.objects.filter(address=WA_ID).count() == 1
    assert [message.to for message in meta.sent] == [DIALLED]
