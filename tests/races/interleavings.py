"""Replies on their way in many sessions at once, and what else befalls each session, in any order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Message, Turn
from conversations.services.delivery import claiming, sending
from conversations.services.replies import leases, pipeline
from tests.races.doors import Says
from tests.races.threads import Job, outcomes

AT_ONCE = 50
THREADS = 16

Event = Callable[[UUID, str], Any]  # what befalls a session, of which it is told the id and whose it is


class Sender:
    """Sends what is due, as dispatchers do, and notes when it went to the session's row to ask whether it still may."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.left: list[tuple[UUID, UUID, float]] = []  # conversation, message, when it was asked

    def send(self) -> None:
        token, ids = claiming.claim(timezone.now(), 5)
        for pk in ids:
            time.sleep(random.uniform(0, 0.001))
            asked_at = time.monotonic()
            if begun := sending.begin(pk, token, timezone.now()):
                with self.guard:
                    self.left.append((begun.conversation_id, pk.message_id, asked_at))
                sending.record_sent(begun, begun.send(), timezone.now())

    def sent_after(self, over: dict[UUID, float]) -> list[UUID]:
        """Sessions in which a turn's reply was sent though it was only asked for after the session was `over`."""
        by_turns = sent_by_turns()
        return [pk for pk, message, asked_at in self.left if message in by_turns and asked_at > over[pk]]


def sent_by_turns() -> set[UUID]:
    """The messages that carry what the assistant said of itself."""
    spoken = Turn.objects.filter(chunk__isnull=False).values("chunk")
    return set(Message.objects.filter(chunk__in=spoken).values_list("pk", flat=True))


def rounds(says: Says, sender: Sender, sessions: int, *events: Event) -> Iterator[list[Exception]]:
    """Somebody asks in each of so many sessions, AT_ONCE at a time, and a reply is being written. Then in any order it
    is committed, what is due is sent, and every one of the events befalls the session. Yields what failed in a round.
    """
    for round_ in range(sessions // AT_ONCE):
        people = {}
        for number in range(AT_ONCE):
            person = f"person {round_} {number}"
            people[UUID(says("red?", user_id=person)["conversation_id"])] = person
        jobs: list[Job] = []
        for turn in leases.claim(timezone.now(), AT_ONCE):
            pk = turn.conversation_id
            mine = [partial(reply, turn), sender.send, *(partial(event, pk, people[pk]) for event in events)]
            jobs += [partial(_in_a_moment, job) for job in random.sample(mine, len(mine))]
        yield [result for result in outcomes(jobs, threads=THREADS) if isinstance(result, Exception)]


def reply(turn: leases.ClaimedTurn) -> str:
    """The turn's engine has written. Returns how the turn ended."""
    return pipeline.commit(turn, Reply("red!", "offline"), timezone.now())


def _in_a_moment(job: Job) -> Any:
    time.sleep(random.uniform(0, 0.004))
    return job()
