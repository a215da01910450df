"""An echo, an edit or a deletion while a reply is written, at random moments, with real threads.

No reply goes to what was withdrawn, an edited message is answered as edited, and the bot says nothing after a
colleague.
A step that began after another had ended must have seen it; steps that overlap may come in either order.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.simulators import whatsapp
from conversations.engines.contract import Reply
from conversations.models import ChannelAccount, Chunk, Client, Conversation, Message, Turn
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.delivery.sending import deliver
from conversations.services.replies import leases, pipeline
from tests.conftest import reply_to_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.meta import FakeMeta
from tests.prompts import heard
from tests.races.threads import together
from tests.sizes import times

pytestmark = pytest.mark.django_db(transaction=True)
PIN, EDITED, CONFIRMED, ANSWER = "my PIN is 9876", "where is my parcel?", "I have seen to it", "I look into it."
MOMENTS = 200  # interleavings of each kind in `make test-long`
LONGEST = 0.02  # seconds before a step
Step = Callable[[FakeMeta, str, str], Any]


@pytest.fixture
def meta() -> Any:
    """Meta's Graph API."""
    with FakeMeta() as fake:
        yield fake


@pytest.fixture
def account(meta: FakeMeta, shop: Client) -> ChannelAccount:
    """The shop's number."""
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    return account_at(meta, shop)


def delivers(meta: FakeMeta, payload: Any) -> None:
    status, outcome = post(meta.signed(payload), "whatsapp")
    assert status == 200, outcome


def deletes(meta: FakeMeta, person: str, message_id: str) -> None:
    gone = whatsapp.revoked(message_id, sender=person)
    delivers(meta, whatsapp.payload(meta.phone_number_id, messages=[gone]))


def edits(meta: FakeMeta, person: str, message_id: str) -> None:
    other = whatsapp.edited(message_id, EDITED, sender=person)
    delivers(meta, whatsapp.payload(meta.phone_number_id, messages=[other]))


def echoes(meta: FakeMeta, person: str, message_id: str) -> None:
    change = whatsapp.change(meta.phone_number_id)
    change["field"] = "smb_message_echoes"
    change["value"]["message_echoes"] = [whatsapp.echo(CONFIRMED, to=person)]
    delivers(meta, whatsapp.around(change))


class Interleaving:
    """One conversation, in which a reply is written and sent while something happens."""

    def __init__(self, meta: FakeMeta, number: int, happens: Step) -> None:
        self.meta, self.happens, self.random = meta, happens, random.Random(number)
        self.person, self.message_id = f"5199{number:07}", f"wamid.{number}"
        self.ended_at = self.commit_began_at = self.send_began_at = float("inf")
        self.committed = self.sent = False
        delivers(meta, whatsapp.payload(meta.phone_number_id, messages=[self.message()]))
        Conversation.objects.update(reply_due_at=timezone.now())

    def message(self) -> dict[str, Any]:
        return whatsapp.text(PIN, sender=self.person, message_id=self.message_id)

    def run(self) -> Conversation:
        together(self._write, self._happen)
        return Conversation.objects.get(contact__identities__address=self.person)

    def _hesitate(self) -> None:
        time.sleep(self.random.random() * LONGEST)

    def _happen(self) -> None:
        self._hesitate()
        self.happens(self.meta, self.person, self.message_id)
        self.ended_at = time.monotonic()

    def _write(self) -> None:
        self._hesitate()
        for claim in leases.claim(timezone.now(), 1):
            if pipeline.prepare(claim):
                self._hesitate()
                self.commit_began_at = time.monotonic()
                status = pipeline.commit(claim, Reply(ANSWER, "offline"), timezone.now())
                self.committed = status == Turn.Status.COMMITTED
        self._hesitate()
        token, ids = claiming.claim(timezone.now(), 1)
        for message_id in ids:
            began = time.monotonic()
            if ready := delivery.begin(message_id, token, timezone.now()):
                self.send_began_at, self.sent = began, True
                outcome = deliver(ready)
                assert isinstance(outcome, SendResult), outcome
                delivery.record_sent(ready, outcome, timezone.now())


def all_of(meta: FakeMeta, happens: Step, check: Callable[[Interleaving, Conversation], None]) -> None:
    orders = set()
    for number in range(times(8, MOMENTS)):
        each = Interleaving(meta, number, happens)
        conversation = each.run()
        check(each, conversation)
        Conversation.objects.filter(pk=conversation.pk).update(reply_owed=False, burst_began_at=None)
        orders.add((each.committed, each.sent))
    assert orders


def prompts_after(conversation: Conversation) -> list[str]:
    """The words of the person, as the model is told when the next reply is due."""
    reply_to_all()
    turn = Turn.objects.filter(conversation=conversation).exclude(prompt=None).order_by("started_at", "attempt").last()
    return heard(turn.prompt["messages"]) if turn else []


def test_a_deleted_message_is_not_answered(meta, account):
    def check(each: Interleaving, conversation: Conversation) -> None:
        late = each.commit_began_at > each.ended_at
        assert not (late and each.committed), "a reply was committed to what was withdrawn"
        before = Chunk.objects.filter(conversation=conversation, role="ai").count()
        assert before == int(each.committed)
        assert not conversation.reply_owed
        reply_to_all()
        assert Chunk.objects.filter(conversation=conversation, role="ai").count() == before
        delivers(each.meta, whatsapp.payload(meta.phone_number_id, messages=[whatsapp.text("hi", sender=each.person)]))
        Conversation.objects.filter(pk=conversation.pk).update(reply_due_at=timezone.now())
        assert PIN not in str(prompts_after(conversation)), "the model was told what was withdrawn"

    all_of(meta, deletes, check)


def test_an_edited_message_is_answered_as_edited(meta, account):
    def check(each: Interleaving, conversation: Conversation) -> None:
        late = each.commit_began_at > each.ended_at
        Conversation.objects.filter(pk=conversation.pk).update(reply_due_at=timezone.now())
        if each.committed and late:
            assert not conversation.reply_owed, "the reply was written to the new words"
        else:
            assert conversation.reply_owed or each.committed
        said = prompts_after(conversation)
        conversation.refresh_from_db()
        assert not conversation.reply_owed
        assert EDITED in str(said)

    all_of(meta, edits, check)


def test_the_bot_says_nothing_after_a_colleague(meta, account):
    def check(each: Interleaving, conversation: Conversation) -> None:
        assert not (each.commit_began_at > each.ended_at and each.committed), "a reply after the colleague's words"
        assert not (each.send_began_at > each.ended_at and each.sent), "a message after the colleague's words"
        chunks = list(Chunk.objects.filter(conversation=conversation, role="ai").order_by("position"))
        assert chunks[-1].content == CONFIRMED, "the colleague has the last word"
        assert conversation.taken_over_name == "a colleague (WhatsApp Business app)"
        assert reply_to_all() == 0
        unsent = Message.objects.filter(conversation=conversation).exclude(status__in=["sent", "cancelled"])
        assert not unsent.exists()

    all_of(meta, partial(echoes), check)
