"""One trace across processes: a message comes to the web process, a dispatcher has a model and a tool answer it and
sends the reply, and the receipt comes to the web process again. A collector gets the spans of each over HTTP."""

from __future__ import annotations

import re

import pytest

from conversations.models import Client, Conversation
from conversations.services.tenants import tools
from tests.crash import stage
from tests.crash.stage import eventually
from tests.fakes.collector import FakeCollector
from tests.fakes.model_server import Behaviour
from tests.fakes.paid_tool import SCHEMA, PaidTool

PERSON = "51977777001"
ORDER = "7410258963"
PARTS = ("receive whatsapp", "invoke_agent", "chat gpt-6-luna", "execute_tool keyed", "send whatsapp")


@pytest.fixture(scope="module")
def collector():
    with FakeCollector() as collector:
        yield collector


@pytest.fixture(scope="module")
def convo(collector, tmp_path_factory, django_db_blocker):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "TOOL_PRIVATE_NETWORKS": "127.0.0.0/8",
        "OPENAI_MODEL": "gpt-6-luna",
    }
    folder = tmp_path_factory.mktemp("convo")
    with django_db_blocker.unblock(), stage.database() as url, stage.Convo(url, folder, **variables) as convo:
        yield convo


@pytest.fixture
def paid(convo):
    """A tool that the model calls once, for the order that the person names."""
    with PaidTool() as paid:
        client = Client.objects.get(pk=convo.client_id)
        _, paid.secret = tools.create_tool(client, "keyed", url=paid.url, parameters=SCHEMA)
        yield paid


@pytest.fixture
def model(convo):
    take = convo.openai.take

    def calls_the_tool_first(request):
        behaviour = take(request)
        messages = request.body.get("messages", [])
        if any(message["role"] == "tool" for message in messages):
            return behaviour
        found = next(found[1] for each in messages if (found := re.search(r"order (\d+)", str(each["content"]))))
        return Behaviour("reply", {"tool_calls": [("keyed", {"order": found, "amount": 5})]})

    convo.openai.take = calls_the_tool_first
    yield
    convo.openai.take = take


def test_a_message_its_reply_and_its_receipt_are_one_trace(convo, web, dispatcher, collector, paid, model):
    convo.says(f"Please pay order {ORDER}", PERSON)
    [sent] = eventually(lambda: [each for each in convo.meta.sent if each.to == PERSON], "the reply is sent")
    convo.becomes_quiet()
    assert convo.post(convo.meta.status_webhook(sent, "delivered")).status_code == 200

    [receipt] = eventually(lambda: collector.named("receipt delivered"), "the receipt's span")
    parts = eventually(
        lambda: found if set(PARTS) <= set(found := collector.of(receipt.trace_id)) else None, "every part"
    )
    receive, turn, chat, tool, send = (parts[name] for name in PARTS)
    assert receive.parent_id == ""
    assert turn.parent_id == receive.span_id
    assert {chat.parent_id, tool.parent_id, send.parent_id} == {turn.span_id}
    assert receipt.parent_id == send.span_id
    assert receive.began <= turn.began <= tool.began <= send.began <= receipt.ended
    assert [each.process.split("-")[0] for each in (receive, receipt)] == ["web", "web"]
    assert {each.process for each in (turn, chat, tool, send)} == {f"dispatcher-{dispatcher.pid}"}

    conversation = Conversation.objects.get(contact__user_id=PERSON)
    assert {span.attributes["gen_ai.conversation.id"] for span in parts.values()} == {str(conversation.pk)}
    assert turn.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert turn.attributes["convo.turn.status"] == "committed"
    asked = {name: chat.attributes[f"gen_ai.{name}"] for name in ("operation.name", "provider.name", "request.model")}
    assert asked == {"operation.name": "chat", "provider.name": "openai", "request.model": "gpt-6-luna"}
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert chat.attributes["gen_ai.response.model"]
    assert chat.attributes["gen_ai.response.finish_reasons"]
    assert tool.attributes["gen_ai.tool.name"] == "keyed"
    assert tool.attributes["convo.tool.outcome"] == "answered"

    # Nothing of what was said, nor of who said it.
    told = str(collector.spans)
    assert ORDER not in told
    assert PERSON not in told
    assert sent.text not in told
