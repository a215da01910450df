"""Every verb on few sessions from many threads: nobody waits for ever, nothing contradicts itself, no surprises."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.engines.contract import ASK_FOR_HUMAN, END_CONVERSATION, EngineError, Reply, ToolAction
from conversations.models import Chunk, Conversation, InboundEvent, Message, Step
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import Actor
from conversations.services.delivery import claiming, recovery, sending
from conversations.services.inbound import settling
from conversations.services.jobs import sweep as lifecycle
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import seed_helpers, send
from conversations.services.tenants.channel_accounts import adapter_of
from conversations.services.transitions import closing, steps, takeover
from tests.bounds import rounds
from tests.claims import message_ids
from tests.races import doors
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

OPERATIONS = times(250, 5_000)
THREADS = 16
PEOPLE = [f"5199999000{number}" for number in range(4)]
STAFF = Actor("staff", "grace")
LATE = timedelta(minutes=2)  # for leases: longer than any
DEEDS = [ToolAction("add_step", {"description": "Ask"}), ToolAction(ASK_FOR_HUMAN), ToolAction(END_CONVERSATION)]
SEND_OUTCOMES = [
    SendError("Later.", code="http_503", retryable=True),
    SendError("Never.", code="131026"),
    SendError("Who knows.", code="timeout", ambiguous=True),
    SendError("Busy.", code="130429", retryable=True, retry_after=0.01, throttled="account"),
]


class Everything:
    """Each method is something that somebody does at any time, to whichever session it hits."""

    def __init__(self, shop, key, account):
        self.shop, self.account = shop, account
        self.own_json = doors.front_door(shop, key)
        self.at_the_provider = doors.provider(account)

    def some(self, found):
        """One of the rows, or None."""
        rows = list(found.values_list("pk", flat=True))
        return random.choice(rows) if rows else None

    def person_writes(self):
        more = random.choice([{}, {"name": f"Ann {random.random():.3f}"}, {"message_id": f"m{random.randrange(300)}"}])
        self.own_json("Hello", user_id=random.choice(PEOPLE), channel=random.choice(["sms", "voice"]), **more)

    def person_writes_on_whatsapp(self):
        more = random.choice([{}, {"name": "Ann"}, {"message_id": f"w{random.randrange(300)}"}])
        self.at_the_provider("Hello", user_id=random.choice(PEOPLE), **more)

    def guest_gives_a_phone(self):
        self.own_json("It's me", user_id=PEOPLE[-1], phone=f"+{PEOPLE[-1]}", channel="orb")

    def program_sends(self):
        if pk := self.some(Conversation.objects.open()):
            send.send(pk, "word " * random.choice([1, 1, 2_000]), actor=STAFF, now=timezone.now())

    def staff_close(self):
        if random.random() < 0.3 and (pk := self.some(Conversation.objects.open())):
            closing.close(pk, ended_by="staff", actor=STAFF, now=timezone.now())

    def staff_take_over(self):
        if pk := self.some(Conversation.objects.open()):
            takeover.take_over(pk, actor=STAFF, now=timezone.now(), tell=random.random() < 0.5)

    def staff_hand_back(self):
        if pk := self.some(Conversation.objects.open()):
            takeover.hand_back(pk, actor=STAFF, now=timezone.now())

    def step_is_added(self):
        if pk := self.some(Conversation.objects.all()):
            steps.add_step(pk, "Ask", STAFF)

    def step_is_updated(self):
        if pk := self.some(Step.objects.all()):
            steps.update_step(pk, random.choice(["complete", "cancelled"]), STAFF)

    def session_is_opened(self):
        seed_helpers.create_conversation(self.shop.pk, random.choice(PEOPLE), "messenger", "Ask")

    def session_ages(self):
        age = random.choice([timedelta(minutes=11), timedelta(hours=25)])
        with transaction.atomic():
            one = Conversation.objects.filter(pk=self.some(Conversation.objects.all()))
            if pk := self.some(one.select_for_update()):
                Chunk.objects.filter(conversation=pk).update(created_at=F("created_at") - age)
                Conversation.objects.filter(pk=pk).update(
                    started_at=F("started_at") - age, last_message_at=F("last_message_at") - age
                )

    def sweep(self):
        lifecycle.sweep(timezone.now())

    def purge(self):
        lifecycle.purge_guests(timezone.now())

    def leases_run_out(self):
        later = timezone.now() + LATE
        leases.recover(later)
        recovery.recover(later)

    def replies_are_written(self):
        now = timezone.now() + LATE  # whatever waits for its next try is due
        for turn in leases.claim(now, 3):
            leases.renew({turn.turn_id: turn.client_id}, timezone.now())
            pipeline.prepare(turn)
            if random.random() < 0.8:
                deeds = tuple(random.sample(DEEDS, random.choice([0, 0, 1, 2])))
                reply = Reply("Hi " * random.choice([1, 3_000]), "offline", tool_actions=deeds)
                pipeline.commit(turn, reply, timezone.now())
            else:
                error = EngineError("No.", code="http_500", retryable=random.random() < 0.5)
                pipeline.fail(turn, error, timezone.now())

    def messages_are_sent(self):
        token, messages = claiming.claim(timezone.now() + LATE, 5)
        for pk in messages:
            held = sending.begin(pk, token, timezone.now())
            if held is None:
                continue
            recovery.renew({pk: client for client, pk in messages}, timezone.now())
            if random.random() < 0.6:
                sending.record_sent(held, SendResult(f"wamid.{pk.message_id}"), timezone.now())
            elif random.random() < 0.8:
                sending.record_failed(held, random.choice(SEND_OUTCOMES), timezone.now())

    def receipts_come(self):
        going = Message.objects.filter(channel_account=self.account).exclude(status__in=["cancelled", "queued"])
        for pk in going.order_by("?").values_list("pk", flat=True)[:6]:
            receipt = Receipt(
                account=self.account.address,
                provider_message_id=f"wamid.{pk}",
                status=random.choice([*ReceiptStatus]),
                our_message_id=random.choice([None, str(pk)]),
                code="131026",
            )
            account = self.account
            settling._settle(adapter_of(account), account, receipt, settling.Outcome())


def test_nothing_that_happens_at_once_deadlocks_or_contradicts_itself(shop, key, account, monkeypatch):
    monkeypatch.setattr(lifecycle, "BATCH", 3)
    everything = Everything(shop, key, account)
    verbs = [getattr(everything, name) for name in vars(Everything) if name[0] != "_" and name != "some"]
    weights = [6 if verb.__name__.startswith("person") else 2 for verb in verbs]

    results = outcomes(random.choices(verbs, weights, k=OPERATIONS), THREADS)

    surprises = [error for error in results if isinstance(error, Exception) and not isinstance(error, DomainError)]
    assert not surprises, surprises[:5]
    assert_sound()


def test_afterwards_everything_is_answered_and_sent(shop, key, account):
    everything = Everything(shop, key, account)
    verbs = [
        everything.person_writes,
        everything.person_writes_on_whatsapp,
        everything.program_sends,
        everything.replies_are_written,
        everything.messages_are_sent,
        everything.leases_run_out,
    ]
    results = outcomes(random.choices(verbs, k=times(100, 1_000)), THREADS)
    assert not [error for error in results if isinstance(error, Exception) and not isinstance(error, DomainError)]

    later = timezone.now() + timedelta(hours=1)
    for conversation in Conversation.objects.open().exclude(taken_over_at=None):
        takeover.hand_back(conversation.pk, actor=STAFF, now=timezone.now())
    leases.recover(later)
    owing = Conversation.objects.filter(reply_owed=True)
    for _ in rounds("Replying", lambda: list(owing.values_list("pk", "status", "reply_attempts", "reply_due_at"))):
        turns = leases.claim(later, 100)
        if not turns:
            break
        for turn in turns:
            pipeline.prepare(turn)
            pipeline.commit(turn, Reply("Hi", "offline"), later)
    recovery.recover(later)
    for _ in rounds("Sending", lambda: list(Message.objects.filter(status="queued").values_list("pk", "conversation"))):
        messages = message_ids(later, 100)
        if not messages:
            break
        Message.objects.filter(pk__in=messages).update(status="sent", lease_token=None, lease_until=None)

    assert not Conversation.objects.filter(reply_owed=True).exists()
    for conversation in Conversation.objects.open().filter(needs_staff_since=None):
        assert conversation.chunks.last().role == "ai"
    assert not Message.objects.filter(status__in=["queued", "claimed", "sending"]).exists()
    assert not InboundEvent.objects.exists()
    assert_sound()
