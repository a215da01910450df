"""Traces of what happens in one process, as a recorder gets them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations import traces
from conversations.models import Assistant, Client, Conversation
from conversations.traces import Span
from tests.conftest import Door, reply_to_all, send_all
from tests.fakes.openai import FakeOpenAI

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    """The spans, while somebody collects them."""
    found: list[Span] = []
    traces.record_to(found.append)
    yield found
    traces.record_to(None)


@pytest.fixture
def model(shop: Client, settings: Any) -> Iterator[FakeOpenAI]:
    """The installation's model, which writes the shop's replies."""
    Assistant.objects.filter(client=shop).update(engine="auto", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def test_a_reply_to_several_messages_is_in_the_trace_of_the_newest_and_linked_to_the_others(
    door: Door, spans: list[Span]
) -> None:
    door.says("One")
    door.says("Two")
    door.says("Three")
    reply_to_all()
    received = named(spans, "receive sms")
    [turn] = named(spans, "invoke_agent")
    assert len({span.at.trace_id for span in received}) == 3
    assert turn.parent == received[-1].at
    assert turn.links == [span.at for span in received[:2]]
    door.says("Four")
    reply_to_all()
    assert named(spans, "invoke_agent")[-1].links == []


def test_an_engine_that_is_no_language_model_has_its_span_too(door: Door, spans: list[Span]) -> None:
    door.says("Hello")
    reply_to_all()
    send_all()
    [receive], [turn], [chat], [send] = (
        named(spans, name) for name in ("receive sms", "invoke_agent", "chat offline", "send sandbox")
    )
    assert {chat.parent, send.parent} == {turn.at}
    assert {span.at.trace_id for span in spans} == {receive.at.trace_id}


def test_the_same_message_again_is_no_further_span(door: Door, spans: list[Span]) -> None:
    door.says("Hello", message_id="m1")
    door.says("Hello", message_id="m1")
    assert len(named(spans, "receive sms")) == 1


def test_what_staff_or_programs_send_begins_a_trace(door: Door, spans: list[Span]) -> None:
    door.says("Hello")
    conversation = Conversation.objects.get()
    door.call("POST", f"/conversations/{conversation.pk}/send", {"role": "ai", "content": "From a program"})
    send_all()
    [send] = named(spans, "send sandbox")
    assert send.parent is None
    assert send.at.trace_id not in {span.at.trace_id for span in named(spans, "receive sms")}


@pytest.mark.parametrize("tells", [False, True])
def test_texts_are_told_only_where_that_is_switched_on(
    door: Door, spans: list[Span], settings: Any, model: FakeOpenAI, tells: bool
) -> None:
    settings.TRACE_TEXTS = tells
    door.says("My secret word is heliotrope")
    reply_to_all()
    [chat] = [span for span in spans if span.name.startswith("chat ")]
    assert ("gen_ai.input.messages" in chat.attributes) is tells
    assert ("gen_ai.output.messages" in chat.attributes) is tells
    assert ("heliotrope" in str(spans)) is tells


def test_nobody_who_collects_costs_no_statement(door: Door, spans: list[Span]) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            door.says("Hello")
            reply_to_all()
            send_all()
        return len(captured)

    statements()
    with_spans = statements()
    traces.record_to(None)
    assert statements() < with_spans


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint() -> None:
    program = (
        "import sys; from convo_project import telemetry; telemetry.start('web');"
        "from conversations import traces; assert not traces.is_on();"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=django_settings.BASE_DIR, check=False, timeout=60)
    assert done.returncode == 0
