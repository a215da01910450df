"""A client's own agent as the engine: what it is asked, what its answer does, and what it may do wrong."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as live_settings
from django.urls import reverse

from conversations.models import Assistant, Chunk, Client, Conversation, ConversationEvent, Message, Step, Turn
from conversations.services.core.ledger import Actor
from conversations.services.replies import failures
from conversations.services.staff_actions import corrections, seed_helpers
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.agent_shop import answers_by_agent, due_now
from tests.conversations.back_office import sign_in
from tests.fakes.agent import Answer, FakeAgent, Stream
from tests.fakes.server import FakeServer, Received, Reply

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent(shop: Client, settings: Any) -> Iterator[FakeAgent]:
    with FakeAgent() as fake:
        answers_by_agent(shop, settings, fake)
        yield fake


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").values_list("content", flat=True))


# --- what it is asked -------------------------------------------------------------------------------------------------
def test_it_is_told_who_wrote_what_and_what_is_known(door: Door, agent: FakeAgent, shop: Client) -> None:
    door.says("Where is my parcel?", phone="+51999999999", name="Ann", metadata={"media": [{"url": "https://m/1"}]})
    conversation = Conversation.objects.get()
    Conversation.objects.update(
        goal="Find it", topic="Parcels", current_goal={"description": "A date"}, summary="Ann waits.",
        variables={"order": "4711"}, metadata={"language": "es"},
    )  # fmt: skip
    step = seed_helpers.add_step(conversation.pk, "Ask the number")
    reply_to_all()

    [request] = agent.requests
    [message] = request.pop("messages")
    assert message.pop("created_at").startswith("20")
    assert message == {
        "position": 3,
        "role": "user",
        "content": "Where is my parcel?",
        "by_staff": False,
        "media": [{"url": "https://m/1"}],
    }
    turn = Turn.objects.get()
    for name in ("turn_token", "deadline", "idempotency_key"):
        assert len(request.pop(name)) > 20
    assert request == {
        "type": "reply.requested",
        "conversation_id": str(conversation.pk),
        "client_id": str(shop.pk),
        "assistant": "ada",
        "channel": "sms",
        "contact": {
            "id": str(conversation.contact_id),
            "user_id": "ann",
            "name": "Ann",
            "phone": "+51999999999",
            "locale": "es",
        },
        "goal": "Find it",
        "topic": "Parcels",
        "current_goal": "A date",
        "steps": [{"id": step.pk, "description": "Ask the number"}],
        "summary": "Ann waits.",
        "memory": "",
        "variables": {"order": "4711"},
        "history": [],
        "turn_id": str(turn.pk),
    }
    assert said() == ["You said: Where is my parcel?"]
    assert (turn.engine, turn.status) == ("agent", "committed")
    assert send_all() == 1


def test_a_phone_number_stays_where_people_are_not_known_by_it(door: Door, agent: FakeAgent) -> None:
    door.says("Hello", channel="messenger", phone="+51999999999")
    reply_to_all()
    assert "phone" not in agent.requests[0]["contact"]
    assert "99999" not in json.dumps(agent.requests)


def test_it_hears_what_came_since_its_answer_and_sees_what_was_before(door: Door, agent: FakeAgent) -> None:
    door.says("one")
    reply_to_all()
    conversation = Conversation.objects.get()
    door.call("POST", f"/conversations/{conversation.pk}/send", {"content": "From the shop"})
    door.says("two")
    door.says("three")
    reply_to_all()
    request = agent.requests[-1]
    assert [(each["role"], each["content"]) for each in request["messages"]] == [
        ("ai", "From the shop"),
        ("user", "two"),
        ("user", "three"),
    ]
    assert [each["content"] for each in request["history"]] == ["one", "You said: one"]


def test_words_that_the_rules_redact_do_not_reach_it(door: Door, agent: FakeAgent, shop: Client) -> None:
    Client.objects.update(redaction_patterns=[r"secret-\d+"])
    door.says("It is secret-4711")
    reply_to_all()
    assert "secret-4711" not in json.dumps(agent.requests)


def test_the_same_messages_have_the_same_key_however_often_it_is_asked(door: Door, agent: FakeAgent) -> None:
    door.says("one")
    agent.then(Answer(status=500), Answer(status=503))
    for _ in range(3):
        reply_to_all()
        due_now()
    door.says("two")
    reply_to_all()
    first, second, third, other = [request["idempotency_key"] for request in agent.requests]
    assert first == second == third != other
    assert len({request["turn_token"] for request in agent.requests}) == 4, "a token is of one turn"
    assert len({headers["webhook-id"] for headers in agent.headers}) == 4
    assert said() == ["You said: one", "You said: two"]


def test_while_a_secret_is_replaced_the_one_before_is_valid_too(door: Door, agent: FakeAgent) -> None:
    Assistant.objects.update(agent_secrets={"current": "whsec_bmV3ZXI=", "before": agent.secret})
    door.says("Hello")
    reply_to_all()
    assert said() == ["You said: Hello"]
    Assistant.objects.update(agent_secrets={"current": "whsec_bmV3ZXI="})
    door.says("Again")
    reply_to_all()
    assert agent.refused == 1


def test_staff_see_what_it_was_given_and_no_token(door: Door, agent: FakeAgent, shop: Client) -> None:
    door.says('My name is "Ann Smithson"')
    reply_to_all()
    turn = Turn.objects.get()
    request = agent.requests[0]
    kept = json.dumps([*Turn.objects.values(), *Conversation.objects.values()], default=str)
    assert request["turn_token"] not in kept
    assert agent.secret not in kept
    page = sign_in("mona", shop, "manager").get(
        reverse("admin:conversations_conversation_receipt", args=[turn.conversation_id, 4])
    )
    assert "Smithson" in page.content.decode()
    assert "its own prompt" in page.content.decode()
    assert "Run it again" not in page.content.decode()
    corrections.redact(Conversation.objects.get().pk, 3, actor=Actor("staff", "grace"), now=turn.started_at)
    assert "Smithson" not in json.dumps([*Turn.objects.values()], default=str)


# --- what its answer does ---------------------------------------------------------------------------------------------
def test_its_messages_are_the_paragraphs_of_one_reply(door: Door, agent: FakeAgent) -> None:
    agent.says("On its way.", "  ", "Anything else?\n", unknown={"field": 1}, later=None, topic=None)
    door.says("Hello")
    reply_to_all()
    assert said() == ["On its way.\n\nAnything else?"]


def test_its_steps_topic_and_goal_are_kept_with_the_reply(door: Door, agent: FakeAgent) -> None:
    door.says("Hello")
    conversation = Conversation.objects.get()
    one, two = (seed_helpers.add_step(conversation.pk, each) for each in ("Ask the number", "Ask the name"))
    steps = {"complete": [one.pk], "cancel": [two.pk], "add": ["Call the courier"]}
    agent.says("Fine.", steps=steps, topic="Parcels", current_goal="A date")
    reply_to_all()
    assert list(Step.objects.values_list("description", "status", "by_assistant")) == [
        ("Ask the number", "complete", False),
        ("Ask the name", "cancelled", False),
        ("Call the courier", "pending", True),
    ]
    conversation.refresh_from_db()
    assert (conversation.topic, conversation.current_goal) == ("Parcels", {"description": "A date"})
    assert [call["name"] for call in Turn.objects.get().tool_calls][:2] == ["complete_step", "cancel_step"]


@pytest.mark.parametrize(
    ("messages", "heard"), [(["I'll ask."], ["I'll ask."]), ([], ["A colleague will take it from here."])]
)
def test_it_hands_over_to_a_person(door: Door, agent: FakeAgent, messages: list[str], heard: list[str]) -> None:
    agent.says(*messages, hand_over={"reason": "wants a refund"})
    door.says("My money!")
    reply_to_all()
    conversation = Conversation.objects.get()
    assert conversation.taken_over_at is not None
    assert conversation.needs_staff_reason == "wants a refund"
    assert said() == heard


def test_it_ends_the_conversation_with_or_without_last_words(door: Door, agent: FakeAgent) -> None:
    for person, messages in (("ann", ["Goodbye!"]), ("ben", [])):
        agent.says(*messages, end=True)
        door.says("Bye", user_id=person)
        reply_to_all()
    assert [*Conversation.objects.values_list("status", "needs_staff_since")] == [("closed", None)] * 2
    assert said() == ["Goodbye!"]
    assert send_all() == 1


def test_it_may_say_nothing_and_staff_see_it(door: Door, agent: FakeAgent) -> None:
    agent.then(Answer({}))
    door.says("Hello")
    reply_to_all()
    conversation = Conversation.objects.get()
    assert (conversation.reply_owed, said()) == (False, [])
    assert "said nothing" in conversation.needs_staff_reason
    assert ConversationEvent.objects.filter(kind="nothing_said").exists()


# --- what it may do wrong ---------------------------------------------------------------------------------------------
def outcome() -> tuple[str, bool]:
    """The turn's code, and whether the reply is tried again."""
    turn = Turn.objects.get()
    assert turn.status == "failed", (turn.status, turn.code)
    assert turn.reason.startswith(failures.explain(turn.code))
    assert turn.code in failures._EXPLANATIONS
    return turn.code, Conversation.objects.get().reply_owed


WRONG: dict[str, tuple[Answer | Stream, str, bool]] = {
    "fault": (Answer(status=500), "agent_error", True),
    "busy": (Answer(status=429, headers={"Retry-After": "7"}), "agent_busy", True),
    "refused": (Answer(status=401), "agent_unauthorized", False),
    "nothing there": (Answer(status=404), "agent_not_found", False),
    "not taken": (Answer(status=422), "agent_error", False),
    "redirects": (Answer(status=307, headers={"Location": "http://127.0.0.1:9/"}), "agent_redirects", False),
    "huge": (Answer(b'{"messages": ["' + b"x" * 2_000_000 + b'"]}'), "agent_too_long", True),
    "endless": (Answer(b"x" * 2_000_000, headers={"Content-Length": "99999999999"}), "agent_too_long", True),
    "no JSON": (Answer(b"<html>"), "agent_bad_answer", True),
    "deep": (Answer(b"[" * 100_000), "agent_bad_answer", True),
    "no answer": (Answer(b""), "agent_bad_answer", True),
    "cut": (Answer(b'{"messages"', headers={"Content-Length": "400"}), "agent_cut_off", True),
    "no HTTP": (Answer(headers={"Content-Length": "nonsense"}), "agent_cut_off", True),
    "stream without end": (Stream([("delta", {"text": "Half a"})]), "agent_cut_off", True),
    "stream of nonsense": (Stream([("delta", "{")]), "agent_bad_answer", True),
    "stream of numbers": (Stream([("delta", {"text": 7})]), "agent_bad_answer", True),
    "stream with an error": (Stream([("error", {"code": "model_down", "message": "of Ann"})]), "agent_error", True),
    "stream that gives up": (Stream([("error", {"retryable": False})]), "agent_error", False),
    "endless stream": (Stream([("delta", {"text": "x" * 60_000})] * 3), "agent_too_long", True),
    "later after words": (Stream([("delta", {"text": "Hm"}), ("done", {"later": True})]), "agent_bad_answer", True),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_a_code_for_staff_and_nothing_for_the_person(
    door: Door, agent: FakeAgent, name: str, settings: Any
) -> None:
    answer, code, again = WRONG[name]
    agent.then(answer)
    door.says("Hello")
    reply_to_all()
    found, owed = outcome()
    assert (found, owed) == (code, again)
    assert said() == ([] if again else ["Sorry, I cannot answer right now. A colleague will get back to you."])
    if again:
        due_now()
        reply_to_all()
        assert said() == ["You said: Hello"], "it is tried again"


INVALID: list[Any] = [
    [],
    "Hello",
    {"messages": "Hello"},
    {"messages": [7]},
    {"messages": ["x"] * 21},
    {"messages": ["x" * 100_001]},
    {"messages": ["x"], "steps": []},
    {"messages": ["x"], "steps": {"complete": 7}},
    {"messages": ["x"], "steps": {"complete": [10**30]}},
    {"messages": ["x"], "steps": {"complete": ["7"]}},
    {"messages": ["x"], "steps": {"complete": [True]}},
    {"messages": ["x"], "steps": {"add": [" "]}},
    {"messages": ["x"], "steps": {"add": ["x" * 2_001]}},
    {"messages": ["x"], "steps": {"add": ["x"] * 21}},
    {"messages": ["x"], "topic": "x" * 201},
    {"messages": ["x"], "current_goal": {"description": "x"}},
    {"messages": ["x"], "hand_over": True},
    {"messages": ["x"], "hand_over": {"reason": 7}},
    {"messages": ["x"], "end": "yes"},
    {"messages": ["x"], "later": True},
    {"later": "soon"},
]


@pytest.mark.parametrize("answer", INVALID, ids=range(len(INVALID)))
def test_an_invalid_answer_is_refused_as_a_whole(door: Door, agent: FakeAgent, answer: Any) -> None:
    agent.then(Answer(answer))
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_bad_answer", True)
    assert (said(), Step.objects.count()) == ([], 0)


def test_nothing_listens_there(door: Door, agent: FakeAgent) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        Assistant.objects.update(agent_url=f"http://127.0.0.1:{free.getsockname()[1]}/")
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_unreachable", True)


SLOW = {
    "silent": Answer(hang=20),
    "a byte now and then": Answer({"messages": ["x"]}, every=0.05),
    "a stream that stops": Stream([("delta", {"text": "x"}), ("done", {})], hold=threading.Event()),
}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_it_is_not_waited_for_longer_than_its_time_out(door: Door, agent: FakeAgent, slow: Any) -> None:
    Assistant.objects.update(agent_timeout_seconds=0.4)
    agent.then(slow)
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_timeout", True)
    assert (Turn.objects.get().last_token_ms or 0) < 3_000


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/"])
def test_a_private_address_is_never_called(door: Door, agent: FakeAgent, settings: Any, url: str) -> None:
    settings.ORB_PRIVATE_NETWORKS = []
    Assistant.objects.update(agent_url=url.format(port=agent.url.split(":")[2].split("/")[0]))
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_private_address", False)
    assert agent.requests == []


def test_it_is_not_followed_to_a_private_address(door: Door, agent: FakeAgent) -> None:
    class Inside(FakeServer):
        def handle(self, request: Received) -> Reply:
            return Reply(200, {"messages": ["a secret"]})

    with Inside() as inside:
        agent.then(Answer(status=302, headers={"Location": inside.url}))
        door.says("Hello")
        reply_to_all()
        assert inside.requests == []
    assert outcome() == ("agent_redirects", False)


@pytest.mark.parametrize("kept", [{}, {"current": "no base64!"}])
def test_without_a_secret_nothing_is_posted(door: Door, agent: FakeAgent, kept: dict[str, str]) -> None:
    Assistant.objects.update(agent_secrets=kept)
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_no_secret", False)
    assert agent.requests == []


@pytest.mark.parametrize("url", ["http://", "ftp://agent.example/", "http://[::1", f"http://a{'é' * 80}.example/"])
def test_a_url_that_cannot_be_called_is_an_error_for_staff(door: Door, agent: FakeAgent, url: str) -> None:
    Assistant.objects.update(agent_url=url)
    door.says("Hello")
    reply_to_all()
    assert outcome() == ("agent_invalid_url", False)


def test_a_stream_is_taken_whole_where_nobody_reads_along(door: Door, agent: FakeAgent) -> None:
    events = [
        ("delta", {"text": "\nOn its "}),
        ("unknown", {}),
        ("delta", {"text": "wäy. \n"}),
        ("done", {"topic": "T"}),
    ]
    agent.then(Stream(events))
    door.says("Hello")
    reply_to_all()
    assert said() == ["On its wäy."]
    assert Conversation.objects.get().topic == "T"
    assert Message.objects.count() == 1


def test_logs_tell_no_words_and_no_secret(door: Door, agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    for answer in (Answer({"messages": ["Very private"], "topic": 7}), Answer(b"Very private"), Answer(status=500)):
        agent.then(answer)
        door.says("Very private")
        reply_to_all()
        due_now()
    assert "Very private" not in caplog.text
    assert agent.secret not in caplog.text
    assert "Very private" not in json.dumps([*Turn.objects.values_list("reason", flat=True)])
    assert live_settings.ORB_PRIVATE_NETWORKS
