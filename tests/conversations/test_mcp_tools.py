"""Tools of an MCP server: a real one, by the official SDK, is listed; its tools are chosen one by one and called."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone, translation

from channels_out import mcp_tools
from conversations import words
from conversations.models import McpServer, Tool, ToolCall
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import tools
from tests.conftest import reply_to_all
from tests.conversations import tool_shop
from tests.conversations.tool_shop import answers, change
from tests.fakes.dripping import Dripping
from tests.fakes.mcp_server import FakeMcp

pytestmark = pytest.mark.django_db

model = tool_shop.model

FIND = ("find_order", {"order": "4711"})
CANCEL = ("cancel_order", {"order": "4711"})


@pytest.fixture(params=[False, True], ids=["new", "legacy"])
def crm(request: pytest.FixtureRequest, settings: Any) -> Iterator[FakeMcp]:
    """The shop's CRM, of the newest version of the protocol and of the one with sessions."""
    settings.TOOL_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with FakeMcp("t0ken", legacy=request.param) as server:
        yield server


@pytest.fixture
def listed(shop: Any, crm: FakeMcp) -> McpServer:
    """The CRM as the shop's MCP server, its tools listed."""
    server = tools.create_mcp_server(shop, "crm", url=crm.url, bearer="t0ken", timeout_seconds=3)
    tools.list_tools(server, timezone.now())
    return server


def switch_on(*names: str) -> None:
    assert Tool.objects.filter(name__in=names).update(is_active=True) == len(names)


def test_its_tools_are_stored_and_none_is_offered_until_staff_choose_it(door, model, listed):
    found = {tool.name: tool for tool in Tool.objects.all()}
    assert set(found) == {"find_order", "cancel_order", "show", "crm_add_step", "build"}
    assert not any(tool.is_active for tool in found.values())
    order, cancel = found["find_order"], found["cancel_order"]
    assert order.description == "Find an order by its number."
    assert order.parameters["properties"]["order"]["type"] == "string"
    assert (order.changes_something, order.may_repeat) == (False, True), "as the server's hints suggest"
    assert (cancel.changes_something, cancel.may_repeat) == (True, True)
    assert (found["crm_add_step"].changes_something, found["crm_add_step"].may_repeat) == (True, False)
    assert found["crm_add_step"].remote_name == "add_step"
    assert "refers to itself" in found["build"].problem

    door.says("Hello")
    reply_to_all()
    assert "find_order" not in [each["function"]["name"] for each in model.requests[0].body["tools"]]


def test_why_a_tool_is_not_offered_is_stored_in_english_and_read_in_spanish(listed):
    with translation.override("es"):
        tools.list_tools(listed, timezone.now())
        problem = Tool.objects.get(name="build").problem
        assert words.shown(problem) == "Una parte del esquema se refiere a sí misma, lo que aquí no se admite."
    assert problem == "A part of the schema refers to itself, which is not supported here."


def test_a_chosen_tool_is_called_and_its_answer_used(door, model, crm, listed):
    switch_on("find_order", "build")
    door.says("Where is 4711?")
    model.then("reply", tool_calls=[FIND])
    model.then("reply", text="On its way.")
    reply_to_all()
    offered = [each["function"]["name"] for each in model.requests[0].body["tools"]]
    assert offered[-1] == "find_order"
    assert "build" not in offered, "its arguments cannot be checked"
    call = ToolCall.objects.get()
    assert crm.calls == [("find_order", {"order": "4711"}, call.key)]
    assert answers(model) == ["Order 4711 is on its way."]
    assert (call.status, call.answer) == ("answered", "Order 4711 is on its way.")


def test_an_error_of_the_tool_is_an_answer(door, model, crm, listed):
    switch_on("cancel_order")
    door.says("Cancel it")
    model.then("reply", tool_calls=[("cancel_order", {"order": "gone"})])
    reply_to_all()
    assert ToolCall.objects.get().status == "failed"
    assert answers(model)[0].startswith("The tool failed.")


def test_a_call_that_takes_too_long_is_of_unknown_outcome(door, model, crm, listed):
    switch_on("cancel_order")
    change(Tool.objects.get(name="cancel_order"), may_repeat=False)
    McpServer.objects.update(timeout_seconds=1)
    crm.slow = 2.5
    door.says("Cancel it")
    model.then("reply", tool_calls=[CANCEL])
    begun = time.monotonic()
    reply_to_all()
    assert time.monotonic() - begun < 20
    assert (ToolCall.objects.get().status, ToolCall.objects.get().code) == ("unknown", "timeout")
    assert len(crm.calls) == 1


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (500, "unknown"),
        (503, "unknown"),
        (524, "unknown"),
        (429, "unknown"),
        (400, "failed"),
        ({"code": -32603, "message": "Internal error"}, "unknown"),
        ({"code": -32602, "message": "Invalid params"}, "failed"),
    ],
    ids=str,
)
def test_a_call_that_broke_inside_the_server_is_of_unknown_outcome(door, model, crm, listed, broken, status):
    switch_on("cancel_order")
    change(Tool.objects.get(name="cancel_order"), may_repeat=False)
    crm.broken = broken
    door.says("Cancel it")
    model.then("reply", tool_calls=[CANCEL])
    model.then("reply", tool_calls=[CANCEL])
    reply_to_all()
    assert (ToolCall.objects.get().status, len(crm.calls)) == (status, 1)


def test_a_server_that_uses_up_the_time_before_the_call_is_not_called(door, model, crm, listed, monkeypatch):
    switch_on("cancel_order")
    monkeypatch.setattr(mcp_tools._Watch, "left", property(lambda watch: watch.request.seconds * 0.4))
    door.says("Cancel it")
    model.then("reply", tool_calls=[CANCEL])
    reply_to_all()
    assert crm.calls == []
    assert answers(model) == ["The tool could not be reached. Nothing was done."]


def test_a_server_that_is_away_was_not_asked(door, model, crm, listed):
    switch_on("cancel_order")
    McpServer.objects.update(url="http://127.0.0.1:9/mcp")
    door.says("Cancel it")
    model.then("reply", tool_calls=[CANCEL])
    reply_to_all()
    assert answers(model) == ["The tool could not be reached. Nothing was done."]


def test_listing_again_keeps_what_staff_have_set_and_marks_what_is_gone(shop, crm, listed):
    change(Tool.objects.get(name="find_order"), name="look_up", is_active=True, needs_approval=True)
    crm.unlist("cancel_order")
    assert tools.list_tools(listed, timezone.now()) == []
    kept = Tool.objects.get(remote_name="find_order")
    assert (kept.name, kept.is_active, kept.needs_approval) == ("look_up", True, True)
    assert Tool.objects.get(remote_name="cancel_order").problem == tools.NOT_LISTED


@pytest.mark.parametrize("crm", [False], indirect=True)
def test_what_keeps_a_server_from_being_listed_is_said(shop, crm, settings):
    def refusal(**fields: Any) -> str:
        server = tools.create_mcp_server(shop, f"s{time.monotonic_ns()}"[-20:], **{"url": crm.url, **fields})
        with pytest.raises(ConflictError) as caught:
            tools.list_tools(server, timezone.now())
        return str(caught.value)

    assert "It answered with status 401." in refusal(bearer="wrong")
    assert refusal(url="http://127.0.0.1:9/mcp") == "The server could not be asked. (connect)"
    with Dripping("headers") as slow:
        assert "The server could not be asked." in refusal(url=slow.url, timeout_seconds=1)
    settings.TOOL_PRIVATE_NETWORKS = []
    assert refusal(bearer="t0ken") == "The server could not be asked. (private_address)"
    assert not Tool.objects.exists()


def test_without_the_package_there_is_a_sentence_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    request = mcp_tools.ToolRequest(name="x", url="http://127.0.0.1:9/", arguments={}, key="k", seconds=1)
    with pytest.raises(mcp_tools.McpError, match=r"pip install 'mcp>=2.0'"):
        mcp_tools.list_tools(request)
    result = mcp_tools.call(request)
    assert (result.outcome, result.code) == ("not_sent", "not_installed")
