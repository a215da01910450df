"""docs/own-agent.md: its programs run as printed, as own agents of a Convo that runs, and its examples are valid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.utils import timezone

from channels_out.simulators.people import PEOPLE
from conversations.engines.agent_answers import parse
from conversations.engines.contract import PendingStep
from conversations.models import Assistant, ChannelAccount, Chunk, Client, Conversation, Message, Step, Turn
from conversations.services.simulator import accounts, simulator
from conversations.services.staff_actions import seed_helpers
from conversations.services.tenants import agent_secrets
from convo_project.address import free_port
from tests.crash import stage
from tests.fakes.agent import FakeAgent

pytestmark = pytest.mark.timeout(300)  # the first test waits for the server

PAGE = (Path(__file__).resolve().parents[2] / "docs/own-agent.md").read_text()
PLAIN, LANGGRAPH = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
REQUEST, ANSWER = [json.loads(each) for each in re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def convo(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[stage.Convo]:
    """A Convo that may call agents on this machine."""
    with (
        django_db_blocker.unblock(),
        stage.database() as url,
        stage.Convo(url, tmp_path_factory.mktemp("convo"), ORB_PRIVATE_NETWORKS="127.0.0.0/8") as convo,
    ):
        convo.start_web()
        convo.start_dispatcher()
        yield convo


def answers_by(convo: stage.Convo, url: str, secret: str) -> None:
    assistant = Assistant.objects.get(client=convo.client_id)
    assistant.engine, assistant.agent_url, assistant.agent_secrets = "agent", url, {"current": secret}
    assistant.save()


@pytest.fixture
def run(convo: stage.Convo) -> Iterator[Callable[[str], str]]:
    """Run a program as the agent of the assistant. Returns its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> str:
        secret, port = agent_secrets.replace_secret(Assistant()), free_port()
        variables = {"AGENT_SECRET": secret, "PORT": str(port), "CONVO_URL": convo.base_url, "CONVO_API_KEY": convo.key}
        command = [sys.executable, "-c", program]
        running.append(subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.DEVNULL))
        url = f"http://127.0.0.1:{port}/"
        stage.eventually(lambda: refuses(url), "the program listens, and refuses what is not signed")
        answers_by(convo, url, secret)
        return url

    yield start
    for process in running:
        process.kill()
        process.wait()


def refuses(url: str) -> bool:
    forged = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    try:
        return [requests.post(url, json={}, headers=each, timeout=20).status_code for each in ({}, forged)] == [401] * 2
    except requests.ConnectionError:
        return False


def said_to(person: str) -> list[str]:
    found = Chunk.objects.filter(conversation__contact__user_id=person, role="ai")
    return list(found.order_by("position").values_list("content", flat=True))


def test_the_plain_program_answers_hands_over_and_calls_back(convo: stage.Convo, run: Callable[[str], str]) -> None:
    run(PLAIN)
    for person, words in (("ann", "Hello"), ("ben", "I want a refund"), ("cleo", "Where is my parcel?")):
        convo.post_own(user_id=person, message=words)
    convo.becomes_quiet()
    assert said_to("ann") == ["You said: Hello"]
    assert said_to("ben") == ["I'll ask a colleague."]
    assert said_to("cleo") == ["It arrives tomorrow."]
    assert Conversation.objects.get(contact__user_id="ben").needs_staff_reason == "wants a refund"
    turn = Turn.objects.get(conversation__contact__user_id="cleo")
    assert (turn.called_back, turn.waiting_until is not None) == (True, True)


def test_the_program_with_langgraph_remembers_and_completes_a_step(
    convo: stage.Convo, run: Callable[[str], str]
) -> None:
    run(LANGGRAPH)
    convo.post_own(user_id="dora", message="Hello")
    convo.becomes_quiet()
    conversation = Conversation.objects.get(contact__user_id="dora")
    seed_helpers.add_step(conversation.pk, "Ask for the order number")
    convo.post_own(user_id="dora", message="It is 4711")
    convo.becomes_quiet()
    assert said_to("dora") == ["1 messages so far. Thank you!", "2 messages so far. Thank you!"]
    assert Step.objects.get(conversation=conversation).status == "complete"


def test_it_is_played_in_the_simulator_like_any_assistant(convo: stage.Convo, settings: Any) -> None:
    settings.INTERNAL_BASE_URL = convo.base_url
    client = Client.objects.get(pk=convo.client_id)
    accounts.set_up(client)
    account = ChannelAccount.objects.get(client=client, provider="whatsapp", is_simulated=True)
    with FakeAgent() as agent:
        answers_by(convo, agent.url, agent.secret)
        simulator.write_message(account, PEOPLE[0], "Hello", now=timezone.now())
        convo.becomes_quiet()
    [message] = Message.objects.filter(channel_account=account)
    assert (message.text, message.status) == ("You said: Hello", "sent")


def test_the_examples_are_what_is_sent_and_taken(convo: stage.Convo) -> None:
    with FakeAgent() as agent:
        answers_by(convo, agent.url, agent.secret)
        convo.post_own(user_id="emma", message="Hello", phone="+51999999999", name="Emma")
        convo.becomes_quiet()
        convo.post_own(user_id="emma", message="And?")
        convo.becomes_quiet()
        sent = agent.requests[-1]
    assert sent.keys() == REQUEST.keys()
    for name in ("contact", "messages", "history"):
        one, other = [each[name][0] if isinstance(each[name], list) else each[name] for each in (sent, REQUEST)]
        assert one.keys() == other.keys(), name
    taken = parse(ANSWER, [PendingStep(12, "Ask for the order number")], in_copilot=False)
    assert taken.text == "It arrives tomorrow.\n\nBetween 9 and 12."
    assert [action.name for action in taken.tool_actions] == [
        "complete_step",
        "add_step",
        "set_topic",
        "set_current_goal",
        "ask_for_human",
        "end_conversation",
    ]


def test_the_programs_are_short() -> None:
    for program in (PLAIN, LANGGRAPH):
        lines = [line for line in program.splitlines() if line.strip() and not line.startswith(("import", "from"))]
        assert len(lines) <= 42
