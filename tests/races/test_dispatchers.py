"""Several dispatchers share the work: every session is answered once, every message goes out once and in order."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.utils import timezone

from channels_out.adapters.sandbox import SandboxAdapter
from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply
from conversations.models import Chunk, Conversation, Message, Turn
from conversations.services.core.errors import DomainError
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, recovery
from conversations.services.jobs import sweep
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import send as staff_send
from conversations.services.transitions import closing
from tests.claims import message_ids
from tests.prompts import heard
from tests.races.invariants import assert_sound
from tests.races.threads import dispatching, eventually, outcomes, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

PEOPLE = times(20, 100)


class Engine:
    """Repeats the person's last words in 5,000 characters, sometimes only at the second try; notes what it does."""

    name = "offline"

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.running: Counter[str] = Counter()
        self.most_at_once = 0
        self.calls = 0

    def reply(self, request):
        with self.guard:
            self.calls += 1
            self.running[request.conversation_id] += 1
            self.most_at_once = max(self.most_at_once, self.running[request.conversation_id])
        time.sleep(random.uniform(0, 0.02))
        with self.guard:
            self.running[request.conversation_id] -= 1
        if random.random() < 0.2:
            raise EngineError("Not now.", code="http_503", retryable=True)
        [*_, last] = heard(request.prompt.messages)
        return Reply(text=f"{last}: " + "words " * 840, engine=self.name)


@pytest.fixture
def engine(monkeypatch, settings):
    settings.RETRY_BASE_SECONDS = 0.01
    settings.REPLY_ATTEMPTS = 20
    settings.DISPATCH_REPLIES = settings.DISPATCH_SENDS = 8
    settings.DISPATCH_POLL_SECONDS = 0.01
    engine = Engine()
    monkeypatch.setitem(registry.ENGINES, "offline", engine)
    return engine


@pytest.fixture
def sent(monkeypatch):
    """What went out, in order, as (message id, text)."""
    log = []
    send = SandboxAdapter.send

    def logged(self, account, message):
        time.sleep(random.uniform(0, 0.005))
        log.append((message.message_id, message.text))
        return send(self, account, message)

    monkeypatch.setattr(SandboxAdapter, "send", logged)
    return log


@pytest.fixture
def slow_rows():
    """Changing a row of some tables takes 20 ms, so that statements over many rows overlap."""

    @contextmanager
    def slow(*tables):
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE OR REPLACE FUNCTION tests_dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(0.02); RETURN COALESCE(NEW, OLD); END $$"
            )
            for table in tables:
                cursor.execute(
                    f"CREATE TRIGGER tests_dawdle BEFORE UPDATE OR DELETE ON {table} "
                    "FOR EACH ROW EXECUTE FUNCTION tests_dawdle()"
                )
            try:
                yield
            finally:
                for table in tables:
                    cursor.execute(f"DROP TRIGGER tests_dawdle ON {table}")

    return slow


def nothing_is_due():
    return not (
        Conversation.objects.filter(reply_owed=True).exists()
        or Turn.objects.filter(status="running").exists()
        or Message.objects.exclude(status="delivered").exists()
    )


def in_any_order(clients):
    """The same ids with their clients, in another order."""
    return dict(random.sample(list(clients.items()), len(clients)))


def test_two_dispatchers_answer_every_session_once_and_send_every_message_once_in_order(own_json, engine, sent):
    together(*(partial(own_json, f"I am {n}", user_id=f"person {n}") for n in range(PEOPLE)))
    with dispatching(2):
        eventually(nothing_is_due, "everything answered and sent")

    assert engine.most_at_once == 1, "two turns of one session ran at the same time"
    assert Turn.objects.filter(status="committed").count() == Chunk.objects.filter(role="ai").count() == PEOPLE
    assert engine.calls == Turn.objects.count() == PEOPLE + Turn.objects.filter(status="failed").count()
    assert Message.objects.count() == 2 * PEOPLE
    assert_all_was_sent_once_in_order(sent)
    assert_sound()


def test_people_who_go_on_writing_while_two_dispatchers_work_get_an_answer_to_their_last_words(own_json, engine, sent):
    def person(name):
        for n in range(5):
            own_json(f"{name} says {n}", user_id=name, message_id=f"m{n}")
            time.sleep(random.uniform(0, 0.05))

    with dispatching(2):
        together(*(partial(person, f"person {n}") for n in range(16)))
        eventually(nothing_is_due, "everything answered and sent")

    assert engine.most_at_once == 1
    for conversation in Conversation.objects.all():
        last = conversation.chunks.last()
        assert last.role == "ai"
        assert last.content.startswith(f"{conversation.contact.user_id} says 4: ")
    assert_all_was_sent_once_in_order(sent)
    assert_sound()


def assert_all_was_sent_once_in_order(sent):
    assert Counter(pk for pk, _ in sent) == Counter(str(pk) for pk in Message.objects.values_list("pk", flat=True))
    wanted, went = defaultdict(list), defaultdict(list)
    conversation_of = {}
    for message in Message.objects.order_by("chunk_id", "part"):
        conversation_of[str(message.pk)] = message.conversation_id
        wanted[message.conversation_id].append(str(message.pk))
    for pk, _ in sent:
        went[conversation_of[pk]].append(pk)
    assert went == wanted


def test_simultaneous_claims_share_the_sessions(own_json):
    together(*(partial(own_json, "Hello", user_id=f"person {n}") for n in range(PEOPLE)))

    claims = [claim for taken in together(*[partial(leases.claim, timezone.now(), 10)] * 16) for claim in taken]
    claims += leases.claim(timezone.now(), PEOPLE)

    assert len(claims) == len({claim.conversation_id for claim in claims}) == PEOPLE
    assert set(Conversation.objects.values_list("reply_attempts", flat=True)) == {1}


def test_simultaneous_claims_take_only_the_oldest_message_of_each_session(own_json):
    for n in range(10):
        conversation_id = own_json("Hello", user_id=f"person {n}")["conversation_id"]
        for text in ("one", "two", "three"):
            staff_send.send(conversation_id, text, actor=SYSTEM, now=timezone.now())

    taken = [pk for ids in together(*[partial(message_ids, timezone.now(), 10)] * 16) for pk in ids]
    taken += message_ids(timezone.now(), 100)

    assert len(taken) == len(set(taken)) == 10
    assert set(Message.objects.filter(pk__in=taken).values_list("text", flat=True)) == {"one"}


def test_a_turn_whose_lease_ends_as_it_commits_is_committed_once_or_done_again(own_json, settings):
    for round_ in range(times(8, 100)):
        own_json("Hello", user_id=f"person {round_}")
        [first] = leases.claim(timezone.now(), 10)
        later = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS + 1)

        def take_over(later=later):
            leases.recover(later)
            return leases.claim(later, 10)

        results = together(
            *shuffled(
                [
                    partial(pipeline.commit, first, Reply("first", "offline"), timezone.now()),
                    take_over,
                ]
            )
        )
        [claims] = [result for result in results if isinstance(result, list)]
        [status] = [result for result in results if isinstance(result, str)]
        # A commit that finds its turn abandoned holds the session's row for a moment: then the next look claims it.
        claims = claims or leases.claim(later, 10)

        assert (status, len(claims)) in {("committed", 0), ("abandoned", 1)}
        for second in claims:
            assert pipeline.commit(second, Reply("second", "offline"), later) == "committed"
            assert pipeline.commit(first, Reply("first", "offline"), later) == "abandoned"
        assert Chunk.objects.filter(role="ai", conversation_id=first.conversation_id).count() == 1
    assert_sound()


def test_leases_kept_and_taken_while_sessions_end_never_wait_in_circles(own_json, settings, slow_rows):
    """Each of these changes many rows at once, and each takes them in another order."""
    for round_ in range(times(2, 20)):
        together(*(partial(own_json, "Hello", user_id=f"person {round_} {n}") for n in range(12)))
        for claim in leases.claim(timezone.now(), 6):
            pipeline.commit(claim, Reply("Hi", "offline"), timezone.now())
        turns = {claim.turn_id: claim.client_id for claim in leases.claim(timezone.now(), 12)}
        messages = {pk: client for client, pk in claiming.claim(timezone.now(), 12)[1]}
        later = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS + 1)
        with slow_rows("conversation_messages", "conversation_turns"):
            results = outcomes(
                shuffled(
                    [
                        partial(leases.renew, in_any_order(turns), later),
                        partial(recovery.renew, in_any_order(messages), later),
                        partial(leases.recover, later),
                        partial(recovery.recover, later),
                        partial(sweep.sweep, later + timedelta(hours=25)),
                        *(
                            partial(closing.close, pk, ended_by="staff", actor=SYSTEM, now=later)
                            for pk in Conversation.objects.values_list("pk", flat=True)[:4]
                        ),
                    ]
                )
            )
        failed = [result for result in results if isinstance(result, Exception)]
        assert [error for error in failed if not isinstance(error, DomainError)] == []
        assert_sound()
        Conversation.objects.all().delete()
