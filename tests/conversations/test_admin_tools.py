"""Tools in the back office: set up by managers, and their calls approved, refused and settled by agents."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from channels_out import standard_webhooks
from conversations.models import Assistant, Conversation, ConversationEvent, McpServer, StaffAction, Tool, ToolCall
from conversations.services.tenants import tools
from tests.bounds import rounds
from tests.fakes.paid_tool import SCHEMA

pytestmark = pytest.mark.django_db

NEW = {
    "name": "charge_card",
    "description": "Charge the card.",
    "parameters": json.dumps(SCHEMA),
    "url": "https://shop.example/charge",
    "timeout_seconds": "20",
    "changes_something": "on",
    "is_active": "on",
}


def address(model, name, *args):
    return reverse(f"admin:conversations_{model}_{name}", args=args)


def do(http, conversation, action, **fields):
    return http.post(address("conversation", "do", conversation.pk, action), fields)


@pytest.fixture
def waiting(shop, session):
    """A call in Ann's session that waits for approval."""
    return ToolCall.objects.create(
        client=shop,
        conversation=session,
        name="refund",
        arguments={"order": "<b>4711</b>", "amount": 20},
        key="k" * 64,
        status="waiting",
    )


# --- setting up -------------------------------------------------------------------------------------------------------
def test_a_manager_adds_a_tool_and_sees_its_secret_once(manager, shop):
    ada = Assistant.objects.get(client=shop)
    answer = manager.post(address("tool", "add"), {**NEW, "client": shop.pk, "assistant_ids": [ada.pk]})
    tool = Tool.objects.get()
    secret = tool.credentials["secret"]
    assert standard_webhooks.is_secret(secret)
    assert secret in answer.content.decode().replace("&#x2B;", "+")
    assert "no-store" in answer.headers["Cache-Control"]
    assert (tool.parameters, tool.assistant_ids, tool.may_repeat) == (SCHEMA, [ada.pk], False)
    page = manager.get(address("tool", "change", tool.pk)).content.decode()
    assert secret not in page
    assert "charge_card" in page
    logged = json.dumps(list(StaffAction.objects.values()), default=str)
    assert "charge_card" in logged
    assert secret not in logged


def test_a_secret_is_replaced_and_the_old_one_is_gone(manager, shop):
    tool, secret = tools.create_tool(shop, "charge_card", url="https://shop.example/")
    shown = manager.post(address("tool", "replace_secret", tool.pk)).content.decode().replace("&#x2B;", "+")
    tool.refresh_from_db()
    assert tool.credentials["secret"] != secret
    assert tool.credentials["secret"] in shown


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "add_step"}, "add_step is a built-in tool."),
        ({"name": "charge card"}, "Write up to 64 letters"),
        ({"parameters": "[1]"}, "Write a JSON Schema of an object"),
        ({"parameters": '{"type": "object", "properties": 5}'}, "This is no JSON Schema"),
        ({"parameters": '{"type": "object", "$ref": "https://evil.example/"}'}, "A $ref may only refer to a part"),
        ({"url": "ftp://shop.example/"}, "Enter a valid URL"),
        ({"url": ""}, "A tool needs a URL."),
        ({"timeout_seconds": "600"}, "less than or equal to 60"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_a_sentence(manager, shop, wrong, sentence):
    answer = manager.post(address("tool", "add"), {**NEW, **wrong, "client": shop.pk})
    assert sentence in answer.content.decode().replace("&#x27;", "'").replace("&quot;", '"')
    assert not Tool.objects.exists()


def test_a_name_is_taken_once_also_where_a_tool_is_renamed(manager, shop):
    tools.create_tool(shop, "charge_card", url="https://shop.example/")
    other, _ = tools.create_tool(shop, "refund", url="https://shop.example/")
    for path in (address("tool", "add"), address("tool", "change", other.pk)):
        answer = manager.post(path, {**NEW, "client": shop.pk})
        assert answer.status_code == 200
        assert "This name is taken." in answer.content.decode()
    assert set(Tool.objects.values_list("name", flat=True)) == {"charge_card", "refund"}


def test_another_client_s_assistant_cannot_be_chosen(manager, shop, neighbour):
    theirs = Assistant.objects.get(client=neighbour)
    answer = manager.post(address("tool", "add"), {**NEW, "client": shop.pk, "assistant_ids": [theirs.pk]})
    assert answer.status_code == 200
    assert not Tool.objects.exists()


def test_the_token_of_an_mcp_server_is_never_shown_and_a_blank_one_keeps_it(manager, shop):
    fields = {"client": shop.pk, "name": "crm", "url": "https://crm.example/mcp", "timeout_seconds": "20"}
    manager.post(address("mcpserver", "add"), {**fields, "is_active": "on", "token": "s3cret"})
    server = McpServer.objects.get()
    assert server.headers == {"Authorization": "Bearer s3cret"}
    manager.post(address("mcpserver", "change", server.pk), {**fields, "timeout_seconds": "9", "token": ""})
    server.refresh_from_db()
    assert (server.headers, server.timeout_seconds) == ({"Authorization": "Bearer s3cret"}, 9)
    assert "s3cret" not in manager.get(address("mcpserver", "change", server.pk)).content.decode()
    assert "s3cret" not in json.dumps(list(StaffAction.objects.values()), default=str)


def test_agents_and_viewers_set_nothing_up(agent, viewer, shop):
    for http in (agent, viewer):
        assert http.post(address("tool", "add"), {**NEW, "client": shop.pk}).status_code == 403
    assert not Tool.objects.exists()


def test_a_command_creates_a_tool_and_prints_it_with_its_secret(shop, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    out = StringIO()
    wanted = ["--client=shop", "--name=charge_card", "--url=https://shop.example/", f"--parameters={schema}"]
    call_command("create_tool", *wanted, "--needs-approval", "--assistant=ada", stdout=out)
    tool, printed = Tool.objects.get(), json.loads(out.getvalue())
    assert printed == {
        "client_id": str(shop.pk),
        "tool_id": str(tool.pk),
        "name": "charge_card",
        "url": "https://shop.example/",
        "secret": tool.credentials["secret"],
    }
    assert (tool.parameters, tool.needs_approval, tool.changes_something) == (SCHEMA, True, True)
    with pytest.raises(CommandError, match="has a tool 'charge_card' already"):
        call_command("create_tool", *wanted)
    with pytest.raises(CommandError, match="has no assistant 'bob'"):
        call_command("create_tool", *wanted, "--assistant=bob")
    with pytest.raises(CommandError, match="has no JSON that can be read"):
        call_command("create_tool", "--client=shop", "--name=x", "--url=https://x.example/", "--parameters=/nowhere")


# --- calls ------------------------------------------------------------------------------------------------------------
def test_an_agent_approves_a_call_on_the_page_of_its_conversation(agent, session, waiting):
    page = agent.get(address("conversation", "change", session.pk)).content.decode()
    assert "The assistant wants to call" in page
    assert "&lt;b&gt;4711&lt;/b&gt;" in page
    answer = do(agent, session, "approve-call", call=waiting.pk, reason="within the rules")
    assert answer.json()["said"] == "The call is approved. The assistant makes it and replies."
    waiting.refresh_from_db()
    assert (waiting.status, waiting.decided_by_name, waiting.reason) == ("approved", "agnes", "within the rules")
    assert Conversation.objects.get().reply_owed is True
    assert ConversationEvent.objects.filter(kind="tool_approved", actor="staff").count() == 1
    assert (
        "The assistant wants to call" not in agent.get(address("conversation", "change", session.pk)).content.decode()
    )


def test_an_agent_refuses_a_call_and_a_second_decision_is_refused(agent, session, waiting):
    assert do(agent, session, "refuse-call", call=waiting.pk, reason="too much").status_code == 200
    answer = do(agent, session, "approve-call", call=waiting.pk)
    assert (answer.status_code, answer.json()["said"]) == (409, "This call does not wait for approval: it is refused.")


def test_a_viewer_sees_a_request_and_decides_nothing(viewer, session, waiting):
    assert (
        "Only agents and managers can approve"
        in viewer.get(address("conversation", "change", session.pk)).content.decode()
    )
    assert do(viewer, session, "approve-call", call=waiting.pk).status_code == 403
    waiting.refresh_from_db()
    assert waiting.status == "waiting"


def test_a_call_of_unknown_outcome_is_on_the_dashboard_and_settled_on_the_page(agent, session, waiting):
    ToolCall.objects.update(status="unknown", code="timeout")
    Conversation.objects.update(
        needs_staff_since=session.started_at, needs_staff_reason="Find out whether this tool was"
    )
    board = agent.get(reverse("admin:index")).content.decode()
    assert "perhaps carried out: find out" in board
    listed = agent.get(address("toolcall", "changelist"), {"status__exact": "unknown"}).content.decode()
    assert "unclear whether it was done" in listed
    page = agent.get(address("conversation", "change", session.pk)).content.decode()
    assert "Nobody knows whether" in page
    assert do(agent, session, "call-was-done", call=waiting.pk).status_code == 200
    waiting.refresh_from_db()
    assert (waiting.status, waiting.decided_by_name) == ("answered", "agnes")
    assert do(agent, session, "call-was-not-done", call=waiting.pk).status_code == 409


# --- by API -----------------------------------------------------------------------------------------------------------
def test_a_program_lists_and_decides(door, session, waiting):
    data = door.get(f"/conversations/{session.pk}/tool-calls?limit=1")
    assert [(each["tool"], each["status"], each["arguments"]["amount"]) for each in data["items"]] == [
        ("refund", "waiting", 20)
    ]
    path = f"/conversations/{session.pk}/tool-calls/{waiting.pk}"
    status, envelope = door.call("POST", f"{path}/approve", {"reason": "fine"})
    assert (status, envelope["data"]["status"], envelope["data"]["reason"]) == (200, "approved", "fine")
    assert door.call("POST", f"{path}/approve", {})[0] == 200
    status, envelope = door.call("POST", f"{path}/refuse", {})
    assert (status, envelope["code"], envelope["details"]) == (409, "decided", {"status": "approved"})


def test_the_list_is_paged(door, session, shop):
    for number in range(5):
        ToolCall.objects.create(
            client=shop, conversation=session, name=f"t{number}", key=str(number), status="answered"
        )
    seen: list[str] = []
    cursor = ""
    for _ in rounds("Paging"):
        page = door.get(f"/conversations/{session.pk}/tool-calls?limit=2{f'&cursor={cursor}' if cursor else ''}")
        seen += [each["tool"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["t0", "t1", "t2", "t3", "t4"]
