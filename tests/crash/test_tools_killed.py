"""kill -9 of a dispatcher around a call that charges a card. Two tools charge: `keyed` does the same Idempotency-Key
once, `plain` charges for each request. Both are called at the same time, and the model calls again whatever it knows.

Whenever the process dies: who calls `keyed` is charged once; who calls `plain` never twice, and where nobody can know
whether it was done, staff are asked to find out.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest

from conversations.models import Client, Conversation, ToolCall, Turn
from conversations.services.tenants import tools
from tests.crash.stage import Hold, eventually
from tests.fakes.model_server import Behaviour
from tests.fakes.paid_tool import SCHEMA, PaidTool
from tests.sizes import times

VARIABLES = {"TOOL_PRIVATE_NETWORKS": "127.0.0.0/8"}
NAMES = ("keyed", "plain")
BOTH = len(NAMES)
numbers = count()
pytestmark = pytest.mark.timeout(times(120, 1_800))


@pytest.fixture(scope="module")
def servers(convo):
    """The servers of both tools, by name."""
    client = Client.objects.get(pk=convo.client_id)
    with PaidTool() as keyed, PaidTool(honours_key=False) as plain:
        found = dict(zip(NAMES, (keyed, plain), strict=True))
        for name, server in found.items():
            _, server.secret = tools.create_tool(
                client, name, url=server.url, parameters=SCHEMA, may_repeat=name == "keyed", timeout_seconds=20
            )
        yield found


class Caller:
    """The model: it calls the tool that the person names, each time that it is asked anew, and then answers."""

    def __init__(self, fake: Any) -> None:
        self.between = Hold(0)  # called after the tool's answer, before the model's
        self._fake, self._take = fake, fake.take
        fake.take = self.take

    def take(self, request: Any) -> Behaviour:
        behaviour = self._take(request)
        messages = request.body.get("messages", [])
        if any(message["role"] == "tool" for message in messages):
            self.between()
            return behaviour
        said = [str(message["content"]) for message in messages if message["role"] == "user"]
        name, person = next(found.groups() for each in said if (found := re.search(r"(keyed|plain) (\d+)", each)))
        return Behaviour("reply", {"tool_calls": [(name, {"order": person, "amount": 5})]})

    def leave(self) -> None:
        self._fake.take = self._take


@pytest.fixture
def model(convo):
    caller = Caller(convo.openai)
    yield caller
    caller.leave()


@contextmanager
def the_database(table, when, convo, _servers, _model):
    with convo.held(table, when, BOTH) as reached:
        yield reached


@contextmanager
def the_tools(moment, _convo, servers, _model):
    hold = Hold(BOTH)
    for server in servers.values():
        setattr(server, moment, hold)
    try:
        yield hold.reached
    finally:
        hold.go_on()


@contextmanager
def the_model(_convo, _servers, model):
    model.between = Hold(BOTH)
    try:
        yield model.between.reached
    finally:
        model.between.go_on()


# Where the dispatcher is held and killed, and whether it is known afterwards what became of a `plain` call.
POINTS = {
    "before the call is written": (partial(the_database, "tool_calls", "NEW.status = 'requested'"), True),
    "while the tool has not charged yet": (partial(the_tools, "before"), False),
    "after it has charged": (partial(the_tools, "after"), False),
    "before its answer is written": (partial(the_database, "tool_calls", "NEW.status = 'answered'"), False),
    "while the model writes on": (the_model, True),
}


def pair() -> dict[str, str]:
    """Two people who are new, by the tool that they name."""
    return {name: f"5197777{next(numbers):04}" for name in NAMES}


def call_of(person: str) -> ToolCall:
    return ToolCall.objects.select_related("conversation").get(conversation__contact__phone=f"+{person}")


@pytest.mark.parametrize(("point", "is_known"), POINTS.values(), ids=POINTS)
def test_killed_around_a_call_nobody_is_charged_twice_and_what_is_unclear_is_shown(
    convo, dispatcher, servers, model, point, is_known
):
    for _ in range(times(3, 50)):
        people = pair()
        with point(convo, servers, model) as reached:
            for name, person in people.items():
                convo.says(f"{name} {person}", person)
            reached()
            dispatcher.kill()
            dispatcher = convo.begin_dispatcher()
        convo.becomes_quiet()

        charged = {name: servers[name].charges[person] for name, person in people.items()}
        assert charged == {"keyed": 1, "plain": 1}
        assert call_of(people["keyed"]).status == "answered"
        plain = call_of(people["plain"])
        assert plain.status == ("answered" if is_known else "unknown")
        assert bool(plain.conversation.needs_staff_since) is not is_known
        assert all(convo.sent_to(person) for person in people.values()), "and everybody is answered"
    convo.assert_everything_went_once()


def test_a_draft_that_is_overtaken_leaves_its_call_to_the_next(convo, dispatcher, servers, model):
    for _ in range(times(3, 50)):
        people = pair()
        with the_model(convo, servers, model) as reached:
            for name, person in people.items():
                convo.says(f"{name} {person}", person)
            reached()
            for person in people.values():
                convo.says("And thank you", person)
        convo.becomes_quiet()

        for name, person in people.items():
            assert servers[name].charges[person] == 1
            assert call_of(person).status == "answered"
            turns = Turn.objects.filter(conversation__contact__phone=f"+{person}")
            assert sorted(turns.values_list("status", flat=True)) == ["committed", "overtaken"]
    convo.assert_everything_went_once()


def test_a_call_that_no_reply_asks_for_any_more_is_shown_to_staff_all_the_same(convo, dispatcher, servers, model):
    person = pair()["plain"]
    servers["plain"].after = hold = Hold()
    convo.says(f"plain {person}", person)
    hold.reached()
    dispatcher.kill()
    hold.go_on()
    conversation = Conversation.objects.get(contact__phone=f"+{person}")
    Conversation.objects.filter(pk=conversation.pk).update(reply_owed=False)
    ToolCall.objects.filter(conversation=conversation).update(lease_until=conversation.started_at)
    convo.begin_dispatcher()
    eventually(lambda: call_of(person).status == "unknown", "the dead process's call is given up")
    assert call_of(person).conversation.needs_staff_reason == "Find out whether this tool was carried out: plain."
    assert servers["plain"].charges[person] == 1
