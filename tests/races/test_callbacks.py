"""An agent calls back at the moment at which something else happens: the reply is said once and whole, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Chunk, Client, Conversation, Message, Turn
from conversations.services.core.ledger import Actor
from conversations.services.replies import late_replies, leases
from conversations.services.staff_actions import send
from conversations.services.transitions import closing, takeover
from tests.conftest import Door, reply_to_all
from tests.conversations.agent_shop import answers_by_agent, call_back
from tests.fakes.agent import LATER, FakeAgent
from tests.races.invariants import assert_sound
from tests.races.threads import shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

STAFF = Actor("staff", "grace")
TEXT = "On its way."


@pytest.fixture
def agent(shop: Client, settings: Any) -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        answers_by_agent(shop, settings, fake)
        yield fake


def look(*, after: float = 0.0) -> None:
    """Do what a dispatcher does every second."""
    now = timezone.now() + timedelta(seconds=after)
    leases.recover(now)
    late_replies.end_waiting(now)


RIVALS: dict[str, tuple[Callable[[Door, Any], Any], set[str]]] = {
    "takeover": (lambda _, pk: takeover.take_over(pk, actor=STAFF, now=timezone.now()), {"taken_over"}),
    "end": (
        lambda _, pk: closing.close(pk, ended_by="staff", actor=STAFF, now=timezone.now(), reason="done"),
        {"ended"},
    ),
    "a newer message": (lambda door, _: (door.says("more"), look()), {"overtaken"}),
    "a colleague's words": (
        lambda _, pk: send.send(pk, "By hand", actor=STAFF, now=timezone.now()),
        {"answered"},
    ),
    "the deadline": (lambda _, __: look(after=700), {"too_late"}),
}


@pytest.mark.parametrize("rival", RIVALS)
def test_a_callback_is_heard_whole_or_refused_with_the_reason(
    door: Door, agent: FakeAgent, rival: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, reasons = RIVALS[rival]
    outcomes: Counter[int] = Counter()
    for round_ in range(times(12, 150)):
        agent.then(LATER)
        pk = door.says("Where is it?", user_id=f"person {round_}")["conversation_id"]
        reply_to_all()
        request = agent.requests[-1]
        jobs = [partial(act, door if rival != "a newer message" else Says(door, round_), pk)]
        jobs += [partial(call_back, door, request, TEXT, steps={"add": ["Call"]})] * 2
        answers = [answer for answer in together(*shuffled(jobs)) if is_answer(answer)]
        assert answers[0] == answers[1], "both calls are told the same"
        status, envelope = answers[0]
        outcomes[status] += 1
        said = Chunk.objects.filter(conversation=pk, content=TEXT).count()
        steps = Conversation.objects.get(pk=pk).steps.count()
        turn = Turn.objects.get(callback_hash=late_replies.hash_of(request["turn_token"]))
        if status == 200:
            assert (said, steps, turn.status) == (1, 1, "committed")
        else:
            assert (status, envelope["code"] in reasons, said, steps) == (409, True, 0, 0), envelope
            assert turn.status not in ("committed", "running")
        agent._next.clear()
        Conversation.objects.filter(pk=pk).update(reply_owed=False)
        Message.objects.filter(conversation=pk, status="queued").update(status="cancelled")
    assert_sound()
    assert sum(outcomes.values()) == times(12, 150)


class Says:
    """A door of one person."""

    def __init__(self, door: Door, number: int) -> None:
        self._door, self._user_id = door, f"person {number}"

    def says(self, words: str) -> Any:
        return self._door.says(words, user_id=self._user_id)


def is_answer(answer: Any) -> bool:
    return isinstance(answer, tuple) and isinstance(answer[0], int)
